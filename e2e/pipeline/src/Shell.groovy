import java.util.concurrent.CopyOnWriteArraySet
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException

/** Runs commands and prints their output line by line. Like Jenkins, it masks every bound secret. */
class Shell {
    /** How long a command and its children may take to end, together: softKillWaitSeconds of Jenkins 2.568.2. */
    private static final int GRACE_SECONDS = 5

    private final PrintStream log
    private final Set<String> secrets = new CopyOnWriteArraySet<>()
    private volatile Process running

    Shell(PrintStream log) {
        this.log = log
        Runtime.runtime.addShutdownHook(new Thread({ end(running) }))
    }

    /** While WORK runs, SECRETS and their base64 are masked. */
    def masking(Collection<String> more, Closure work) {
        Collection<String> forms = more.findAll().collectMany { [it, it.bytes.encodeBase64().toString()] } - secrets
        secrets.addAll(forms)
        try {
            work()
        } finally {
            secrets.removeAll(forms)
        }
    }

    boolean holdsSecret(String text) {
        secrets.any { text.contains(it) }
    }

    void say(String line) {
        // The longest first: one secret may begin with another.
        String masked = secrets.sort(false) { -it.length() }.inject(line) { text, secret -> text.replace(secret, '****') }
        synchronized (log) { log.println(masked) }
    }

    /**
     * The exit code of COMMAND. Throws TimeoutException if it still runs at DEADLINE (milliseconds of the system's clock).
     * If OUTPUT is given, it gets the standard output, which is then not printed.
     */
    int run(List<String> command, File directory, Map<String, String> environment, long deadline, StringBuilder output) {
        ProcessBuilder builder = new ProcessBuilder(command).directory(directory).redirectErrorStream(output == null)
        builder.redirectInput(new File('/dev/null'))
        builder.environment().with { clear(); putAll(environment) }
        Process process = running = builder.start()
        List<Thread> readers = [Thread.start {
            if (output == null) process.inputStream.eachLine('UTF-8') { say(it) }
            else output << process.inputStream.getText('UTF-8')
        }, Thread.start { process.errorStream.eachLine('UTF-8') { say(it) } }]
        boolean inTime = process.waitFor(deadline - System.currentTimeMillis(), TimeUnit.MILLISECONDS)
        if (!inTime) end(process)
        // There is a limit, because a background process may hold the pipe open.
        readers*.join(TimeUnit.SECONDS.toMillis(GRACE_SECONDS))
        if (!inTime) throw new TimeoutException()
        process.exitValue()
    }

    private static void end(Process process) {
        if (!process?.alive) return
        List<ProcessHandle> all = [*process.descendants().toList(), process.toHandle()]
        terminate(process.toHandle(), System.nanoTime() + TimeUnit.SECONDS.toNanos(GRACE_SECONDS))
        // Jenkins stops here. This runner also kills the processes that are left.
        process.waitFor(GRACE_SECONDS, TimeUnit.SECONDS)
        all*.destroyForcibly()
    }

    /**
     * Sends SIGTERM to the children, and to their parent once they have ended or the DEADLINE has passed, as
     * ProcessTree.killRecursively of Jenkins 2.568.2 does. So the deployer has five seconds before make gets the signal.
     */
    private static void terminate(ProcessHandle process, long deadline) {
        process.children().toList().each { terminate(it, deadline) }
        process.destroy()
        try {
            process.onExit().get(Math.max(0, deadline - System.nanoTime()), TimeUnit.NANOSECONDS)
        } catch (TimeoutException ignored) {
            // The DEADLINE has passed; its parent is next.
        }
    }
}
