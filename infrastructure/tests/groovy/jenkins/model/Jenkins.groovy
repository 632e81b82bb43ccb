package jenkins.model

/**
 * Stands in for the classes of Jenkins that folders.groovy uses, and prints the resulting objects. The constructors were read in
 * credentials 1502.v5c95e620ddfe, plain-credentials 199.v9f8e1f741799 and cloudbees-folder 6.1100.ve9eed61d16c4.
 */
class Jenkins {
    private static final Jenkins INSTANCE = new Jenkins()
    private final Map<String, Folder> items = [:]

    static Jenkins get() { INSTANCE }

    Jenkins getPluginManager() { this }

    Jenkins getUberClassLoader() { this }

    Kind loadClass(String name) { new Kind(name.split(/[.$]/).last()) }

    Folder getItem(String name) { items[name] }

    Folder createProject(Kind kind, String name) { items[name] = new Folder(name) }
}

/** A class of which only the name is known. */
class Kind {
    final String name

    Kind(String name) { this.name = name }

    Object newInstance(Object... arguments) { [kind: name, arguments: arguments as List] }

    Object fromRawBytes(byte[] bytes) { [kind: name, arguments: [new String(bytes)]] }

    Object propertyMissing(String constant) { "$name.$constant".toString() }

    boolean equals(Object other) { other instanceof Kind && other.name == name }
}

class Folder {
    final String name
    final List properties = new Properties()

    Folder(String name) { this.name = name }

    void addProperty(Map property) {
        properties << property
        println "$name has ${properties.size()} $property.kind"
        property.arguments[0].each { println "$name holds ${it.kind}(${it.arguments*.toString().join(', ')})" }
    }

    /** As hudson.util.PersistedList has it. */
    static class Properties extends ArrayList {
        void removeAll(Kind kind) { removeIf { it.kind == kind.name } }
    }
}
