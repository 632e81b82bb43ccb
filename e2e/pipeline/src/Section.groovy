/** A block as data: its directives with their arguments, in order. Blocks of steps stay closures, which run later. */
class Section {
    final List<List> directives = []
    private final Map<String, String> environment

    private Section(Map<String, String> environment) {
        this.environment = environment
    }

    static Section read(Closure code, Map<String, String> environment) {
        Section section = new Section(environment)
        Closure bound = code?.rehydrate(section, section, section)
        bound?.resolveStrategy = Closure.DELEGATE_ONLY
        bound?.call()
        section
    }

    /** The block NAME in this one, or an empty one. */
    Section inner(String name) {
        read((Closure) argument(name), environment)
    }

    /** The last argument of the first directive NAME, or null. */
    def argument(String name) {
        directives.find { it[0] == name }?.last()
    }

    def methodMissing(String name, Object arguments) {
        directives << [name, *(arguments as List)]
        arguments ? arguments[-1] : null
    }

    def propertyMissing(String name) {
        if (name == 'any') return 'any'
        if (name == 'env') return environment
        if (!environment.containsKey(name)) {
            throw new Refused("Jenkinsfile: no variable `$name`; Jenkins would write `null` in its place")
        }
        environment[name]
    }

    /** In `environment`, each assignment is a variable, seen by those after it. */
    def propertyMissing(String name, Object value) {
        override(environment, [(name): value.toString()])
    }

    /** Sets the VARIABLES. An empty one is unset, as in EnvVars.override of Jenkins 2.568.2. */
    static Map<String, String> override(Map<String, String> environment, Map<String, String> variables) {
        variables.each { name, value ->
            if (value) environment[name] = value
            else environment.remove(name)
        }
        environment
    }
}
