import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException

/** One build of one commit: the pipeline's stages in order, then its post conditions. */
class Build {
    final File repository, workspace, artifacts, temporary
    final String branch, commit
    final Shell shell
    private final Properties credentials
    private final Map<String, String> variables
    /** The object `currentBuild` of the Jenkinsfile. */
    final Map<String, String> current = [description: null]
    private String result = 'SUCCESS'
    private final List<String> summary = []

    Build(Map it) {
        repository = it.repository
        workspace = it.workspace
        artifacts = it.artifacts
        branch = it.branch
        commit = it.commit
        credentials = it.credentials
        shell = new Shell(System.out)
        // Not in the workspace, because that would make the work tree dirty.
        temporary = new File("${workspace}@tmp")
        // GIT_COMMIT is missing, as in Jenkins, which sets it only for the checkout that it makes itself.
        variables = Section.override(System.getenv().findAll { it.key != 'GIT_COMMIT' }, [
            BRANCH_NAME : branch,
            WORKSPACE   : workspace.path,
            JOB_NAME    : "request-info/$branch".toString(),
            BUILD_NUMBER: '1',
            BUILD_TAG   : "jenkins-request-info-$branch-1".toString(),
            BUILD_URL   : "file://$artifacts/".toString(),
        ] + it.variables)
    }

    /** The time at which LIMIT, the arguments of a `timeout`, ends. OUTER if that is earlier, or if LIMIT is missing. */
    static long deadline(Object limit, long outer) {
        if (limit == null) return outer
        TimeUnit unit = TimeUnit.valueOf(limit instanceof Map && limit.unit ? limit.unit : 'MINUTES')
        Math.min(outer, System.currentTimeMillis() + unit.toMillis(sole(limit, 'time') as long))
    }

    /** The value of the argument NAME, which may be GIVEN to a step or an option without its name. */
    static Object sole(Object given, String name) {
        given instanceof Map ? given[name] : given
    }

    /** A credential's PART, which may be empty. */
    String credential(String id, String part) {
        String value = credentials.getProperty("$id.$part")
        if (value == null) {
            throw new StepFailed("no credential `$id` with a $part: the credentials file has no line $id.$part=…")
        }
        value
    }

    /** SUCCESS, FAILURE or ABORTED. */
    String run(Closure jenkinsfile) {
        temporary.mkdirs()
        Map<String, String> environment = new LinkedHashMap(variables)
        Section pipeline = Section.read(jenkinsfile, environment)
        pipeline.inner('environment')
        long deadline = deadline(pipeline.inner('options').argument('timeout'), Long.MAX_VALUE)
        pipeline.inner('stages').directives.each { stage(sole(it[1], 'name').toString(), (Closure) it[2], environment, deadline) }
        post(pipeline.inner('post'), environment, 'post')
        summary.each { shell.say(it) }
        if (current.description) shell.say("Description: $current.description")
        shell.say("Finished: $result")
        temporary.deleteDir()
        result
    }

    private void stage(String name, Closure code, Map<String, String> outer, long deadline) {
        if (result != 'SUCCESS') {
            close(name, 'NOT RUN', 'an earlier stage failed')
            return
        }
        Map<String, String> environment = new LinkedHashMap(outer)
        Section stage = Section.read(code, environment)
        String only = sole(stage.inner('when').argument('branch'), 'pattern')
        if (only != null && !(branch ==~ Steps.ant(only))) {
            close(name, 'SKIPPED', "this is branch $branch, not $only")
            return
        }
        shell.say("=== stage $name")
        long began = System.currentTimeMillis()
        stage.inner('environment')
        long end = Build.deadline(stage.inner('options').argument('timeout'), deadline)
        attempt(name) { new Steps(this, environment, end).run((Closure) stage.argument('steps')) }
        post(stage.inner('post'), environment, name)
        close(name, result, String.format('%.1f s', (System.currentTimeMillis() - began) / 1000))
    }

    /** Runs the conditions in Jenkins's order, not in the file's. The stages' timeouts have ended. */
    private void post(Section post, Map<String, String> environment, String name) {
        Map<String, Closure<Boolean>> conditions = [
            always      : { true },
            failure     : { result == 'FAILURE' },
            success     : { result == 'SUCCESS' },
            unsuccessful: { result != 'SUCCESS' },
            cleanup     : { true },
        ]
        conditions.each { String condition, Closure<Boolean> met ->
            Closure steps = (Closure) post.argument(condition)
            if (steps && met()) attempt("$name, $condition") { new Steps(this, environment, Long.MAX_VALUE).run(steps) }
        }
    }

    /** Runs WORK. An exception decides the build's result, and is printed with the Jenkinsfile's line. */
    private void attempt(CharSequence where, Closure work) {
        try {
            work()
        } catch (TimeoutException e) {
            result = 'ABORTED'
            shell.say("ERROR: $where: timeout exceeded (${line(e)})")
        } catch (Exception e) {
            if (result == 'SUCCESS') result = 'FAILURE'
            shell.say("ERROR: $where: ${e instanceof StepFailed ? e.message : e} (${line(e)})")
        }
    }

    private static String line(Exception e) {
        StackTraceElement frame = e.stackTrace.find { it.fileName == 'Jenkinsfile' }
        frame ? "Jenkinsfile:$frame.lineNumber" : 'Jenkinsfile'
    }

    private void close(String name, String outcome, String detail) {
        String line = "stage $name: $outcome ($detail)"
        summary << line
        shell.say("=== $line")
    }
}
