import org.codehaus.groovy.control.CompilerConfiguration

/**
 * Stands in for Job DSL, whose blocks ask their delegate first (ContextHelper of job-dsl 3654.vdf58f53e2d15), and prints each call
 * within its blocks, one a line, as `block(name).block.call [arguments]`.
 */
class Calls {
    private final String path

    Calls(String path) { this.path = path }

    def methodMissing(String name, Object given) {
        List arguments = given as List
        Closure block = arguments && arguments.last() instanceof Closure ? arguments.removeLast() : null
        String here = (path ? "$path." : '') + name + (block && arguments ? "(${arguments.join(', ')})" : '')
        if (block == null) {
            println "$here ${arguments.inspect()}"
        } else {
            block.delegate = new Calls(here)
            block.resolveStrategy = Closure.DELEGATE_FIRST
            block()
        }
    }
}

CompilerConfiguration configuration = new CompilerConfiguration(scriptBaseClass: DelegatingScript.name)
args.each {
    DelegatingScript script = (DelegatingScript) new GroovyShell(getClass().classLoader, configuration).parse(new File(it))
    script.setDelegate(new Calls(''))
    script.run()
}
