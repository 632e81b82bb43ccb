import java.util.concurrent.CopyOnWriteArraySet
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException

/** Runs commands and prints what they say, line by line, with every bound secret masked, as Jenkins does. */
class Shell {
    /** How long a command that was told to end may take over it. */
    private static final int GRACE_SECONDS = 10

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

    /** The exit code of COMMAND; TimeoutException where it is still running at DEADLINE (milliseconds of the system's clock). */
    int run(List<String> command, File directory, Map<String, String> environment, long deadline) throws TimeoutException {
        ProcessBuilder builder = new ProcessBuilder(command).directory(directory).redirectErrorStream(true)
        builder.redirectInput(new File('/dev/null'))
        builder.environment().with { clear(); putAll(environment) }
        Process process = running = builder.start()
        Thread reader = Thread.start { process.inputStream.eachLine('UTF-8') { say(it) } }
        if (!process.waitFor(deadline - System.currentTimeMillis(), TimeUnit.MILLISECONDS)) {
            end(process)
            throw new TimeoutException()
        }
        // Not for ever: something left in the background may hold the pipe open.
        reader.join(TimeUnit.SECONDS.toMillis(GRACE_SECONDS))
        process.exitValue()
    }

    private static void end(Process process) {
        if (!process?.alive) return
        List<ProcessHandle> all = [*process.descendants().toList(), process.toHandle()]
        all*.destroy()
        if (!process.waitFor(GRACE_SECONDS, TimeUnit.SECONDS)) all*.destroyForcibly()
    }
}
