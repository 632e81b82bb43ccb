import org.codehaus.groovy.control.CompilerConfiguration
import org.codehaus.groovy.control.MultipleCompilationErrorsException
import org.codehaus.groovy.control.messages.ExceptionMessage

/** Parses the command line, reads the Jenkinsfile of the commit, builds it, and ends with the exit code. */
class Runner {
    private static final String USAGE = '''\
        run --repository DIR --branch NAME --commit SHA --workspace DIR --artifacts DIR [--credentials FILE] [--env NAME=VALUE]...
        Builds commit SHA of the git repository DIR by its Jenkinsfile, as Jenkins would. Every `sh` runs for real.
          --workspace DIR     an empty directory for the clone, or the clone of an earlier build
          --artifacts DIR     where archiveArtifacts copies to
          --credentials FILE  Java properties: ID.username and ID.password, or ID.secret, or ID.file (a path)
          --env NAME=VALUE    a variable of the job
        Exit code: 0 the build succeeded, 1 it failed or was aborted, 2 it did not begin.
        '''.stripIndent()

    static void main(String[] arguments) {
        if ('--help' in arguments) {
            print USAGE
            return
        }
        try {
            Map options = parse(arguments)
            Closure jenkinsfile = load(options.repository, options.commit)
            System.exit(new Build(options).run(jenkinsfile) == 'SUCCESS' ? 0 : 1)
        } catch (Refused e) {
            System.err.println("pipeline: ${e.message}")
            System.exit(2)
        }
    }

    private static final List<String> REQUIRED = ['repository', 'branch', 'commit', 'workspace', 'artifacts']

    private static Map parse(String[] arguments) {
        Map<String, List<String>> given = [:].withDefault { [] }
        for (int i = 0; i < arguments.length; i += 2) {
            String name = arguments[i].replaceFirst('^--', '')
            if (!(name in [*REQUIRED, 'credentials', 'env'])) throw new Refused("unknown option ${arguments[i]}; see --help")
            if (i + 1 == arguments.length) throw new Refused("--$name needs a value; see --help")
            given[name] << arguments[i + 1]
        }
        REQUIRED.each { if (!given[it]) throw new Refused("--$it is missing; see --help") }

        File workspace = new File(given.workspace[0]).absoluteFile
        if (workspace.list() && !new File(workspace, '.git').exists()) {
            throw new Refused("--workspace $workspace is neither empty nor a clone of an earlier build; name a new directory")
        }
        Properties credentials = new Properties()
        given.credentials.each { String file ->
            try {
                new File(file).withReader { credentials.load(it) }
            } catch (IOException e) {
                throw new Refused("--credentials $file cannot be read: ${e.message}")
            }
        }
        Map<String, String> variables = given.env.collectEntries {
            if (!it.contains('=')) throw new Refused("--env $it is not NAME=VALUE")
            it.split('=', 2).toList()
        }
        [
            repository : new File(given.repository[0]).absoluteFile,
            branch     : given.branch[0],
            commit     : given.commit[0],
            workspace  : workspace,
            artifacts  : new File(given.artifacts[0]).absoluteFile,
            credentials: credentials,
            variables  : variables,
        ]
    }

    /** The Jenkinsfile of the commit, as Jenkins reads it, and not that of the work tree. */
    private static Closure load(File repository, String commit) {
        Process git = ['git', '-C', repository.path, 'show', "$commit:Jenkinsfile".toString()].execute()
        StringBuilder text = new StringBuilder(), complaint = new StringBuilder()
        git.waitForProcessOutput(text, complaint)
        if (git.exitValue() != 0) throw new Refused("no Jenkinsfile in commit $commit of $repository: ${"$complaint".trim()}")

        Closure found = null
        Binding binding = new Binding(pipeline: { Closure code -> found = code })
        CompilerConfiguration configuration = new CompilerConfiguration()
        configuration.addCompilationCustomizers(new Grammar())
        try {
            new GroovyShell(Runner.classLoader, binding, configuration).parse(text.toString(), 'Jenkinsfile').run()
        } catch (MultipleCompilationErrorsException e) {
            // The compiler wraps the exceptions of Grammar.
            Refused refusal = e.errorCollector.errors.findResult {
                it instanceof ExceptionMessage && it.cause instanceof Refused ? it.cause : null
            }
            throw refusal ?: new Refused(e.message)
        }
        found
    }
}
