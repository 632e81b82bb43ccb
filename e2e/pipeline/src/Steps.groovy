import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import java.util.regex.Pattern

/** Runs the steps of a stage. */
class Steps {
    private final Build build
    private final Map<String, String> environment
    private final long deadline

    /** DEADLINE is in milliseconds of the system's clock. */
    Steps(Build build, Map<String, String> environment, long deadline) {
        this.build = build
        this.environment = environment
        this.deadline = deadline
    }

    void run(Closure code) {
        Closure bound = code.rehydrate(this, this, this)
        bound.resolveStrategy = Closure.DELEGATE_ONLY
        bound.call()
    }

    def propertyMissing(String name) {
        if (!environment.containsKey(name)) throw new StepFailed("no variable `$name`")
        environment[name]
    }

    Map<String, String> getEnv() {
        environment
    }

    Map<String, String> getCurrentBuild() {
        build.current
    }

    Map getScm() {
        scmGit(branches: [[name: build.branch]], userRemoteConfigs: [[url: build.repository]], extensions: [])
    }

    static Map scmGit(Map arguments) { arguments }

    static Map cloneOption(Map arguments) { [cloneOption: arguments] }

    static Map cleanBeforeCheckout() { [clean: true] }

    /** Checks out the built commit, detached, in a clone of the branch. As in Jenkins, an existing clone is kept and updated. */
    void checkout(Map arguments) {
        Map scm = arguments.scm ?: arguments
        Map options = scm.extensions.findResult { it.cloneOption } ?: [:]
        List<String> extent = []
        if (options.shallow) extent += ['--depth', options.depth ?: 1]
        // With a scheme, git copies what a remote would send. From a path without one, it makes hard links and never a shallow clone.
        String origin = "file://${scm.userRemoteConfigs[0].url}"
        if (new File(build.workspace, '.git').exists()) {
            if (scm.extensions.any { it.clean }) {
                git('reset', '--quiet', '--hard')
                git('clean', '--quiet', '-ffdx')
            }
            extent << (options.noTags ? '--no-tags' : '--tags')
            git('fetch', '--quiet', *extent, origin, "+refs/heads/$build.branch:refs/remotes/origin/$build.branch")
        } else {
            if (options.reference) extent += ['--reference', options.reference]
            // noTags has no effect: a multibranch job's source asks for no tags, and CloneOption of git 5.10.1 does not change that.
            extent << '--no-tags'
            git('clone', '--quiet', '--no-checkout', '--branch', build.branch, *extent, origin, '.')
        }
        git('checkout', '--quiet', '--force', '--detach', build.commit)
    }

    private void git(Object... arguments) {
        build.workspace.mkdirs()
        command(['git', *arguments]*.toString())
    }

    String sh(CharSequence script) { sh(script: script) }

    /** As in Jenkins, the script is a file that `sh -xe` runs unless it names an interpreter. */
    String sh(Map arguments) {
        CharSequence script = arguments.script
        StringBuilder output = arguments.returnStdout ? new StringBuilder() : null
        if (build.shell.holdsSecret(script.toString())) {
            build.shell.say('Warning: a secret was put into this script by Groovy; let the shell read the variable instead')
        }
        File file = File.createTempFile('script', '.sh', build.temporary)
        file.text = script
        try {
            file.executable = true
            command(script.toString().startsWith('#!') ? [file.path] : ['sh', '-xe', file.path], output)
        } finally {
            file.delete()
        }
        output
    }

    private void command(List<String> command, StringBuilder output = null) {
        int code = build.shell.run(command, build.workspace, environment, deadline, output)
        if (code != 0) throw new StepFailed("script returned exit code $code")
    }

    void echo(message) { build.shell.say(Build.sole(message, 'message').toString()) }

    void error(message) { throw new StepFailed(Build.sole(message, 'message').toString()) }

    /** Knows only what Grammar allows in it. */
    void script(Closure code) { run(code) }

    void timeout(limit, Closure code) {
        new Steps(build, environment, Build.deadline(limit, deadline)).run(code)
    }

    void withEnv(variables, Closure code) {
        List<CharSequence> overrides = (List) Build.sole(variables, 'overrides')
        within(overrides.collectEntries { it.toString().split('=', 2).toList() }, code)
    }

    private void within(Map<String, String> variables, Closure code) {
        new Steps(build, Section.override(new LinkedHashMap(environment), variables), deadline).run(code)
    }

    Map usernamePassword(Map it) {
        String password = build.credential(it.credentialsId, 'password')
        String user = build.credential(it.credentialsId, 'username')
        [variables: [(it.usernameVariable): user, (it.passwordVariable): password], secrets: [password]]
    }

    Map string(Map it) {
        String secret = build.credential(it.credentialsId, 'secret')
        [variables: [(it.variable): secret], secrets: [secret]]
    }

    Map file(Map it) {
        File source = new File(build.credential(it.credentialsId, 'file'))
        Path copy = Files.createTempDirectory(build.temporary.toPath(), 'secretFiles').resolve(source.name)
        Files.copy(source.toPath(), copy)
        [variables: [(it.variable): copy.toString()], secrets: [copy.toString()], file: copy]
    }

    void withCredentials(given, Closure code) {
        List<Map> bindings = (List) Build.sole(given, 'bindings')
        try {
            build.shell.masking(bindings*.secrets.flatten()) { within(bindings*.variables.sum(), code) }
        } finally {
            bindings*.file.findAll().each { Files.delete(it); Files.delete(it.parent) }
        }
    }

    void archiveArtifacts(CharSequence pattern) { archiveArtifacts(artifacts: pattern) }

    /** Copies what Ant's PATTERNs match to the artifacts' directory. */
    void archiveArtifacts(Map arguments) {
        List<String> patterns = arguments.artifacts.toString().split(/\s*,\s*/).collect { ant(it) }
        Path root = build.workspace.toPath()
        List<Path> found = Files.isDirectory(root) ? Files.walk(root).filter { Path path ->
            String name = root.relativize(path)
            Files.isRegularFile(path) && patterns.any { name ==~ it }
        }.toList() : []
        if (!found && !arguments.allowEmptyArchive) throw new StepFailed("no file matches ${arguments.artifacts}")
        found.each { Path path ->
            Path copy = build.artifacts.toPath().resolve(root.relativize(path).toString())
            Files.createDirectories(copy.parent)
            Files.copy(path, copy, StandardCopyOption.REPLACE_EXISTING)
            build.shell.say("archived ${root.relativize(path)}")
        }
    }

    /** Ant's wildcards as a regular expression: ** crosses directories, * and ? do not. */
    static String ant(String pattern) {
        Map<String, String> wildcards = ['**/': '(?:.*/)?', '**': '.*', '*': '[^/]*', '?': '[^/]']
        pattern.replaceAll(~/\*\*\/|\*\*|\*|\?|[^*?]+/) {
            wildcards[it] ?: Pattern.quote(it)
        }
    }
}
