// Two folders. `main` holds the credentials, and jobs.groovy puts only the job of the branch main into it. `branches` holds no
// credentials that push or deploy, because whoever may push a branch writes its Jenkinsfile, which can use its folder's credentials.
// The configuration as code runs this before Jenkins loads its jobs. The folders are made again each time, with the current secrets.
import jenkins.model.Jenkins

def classes = Jenkins.get().pluginManager.uberClassLoader
def secrets = new File(System.getenv('SECRETS'))
def text = { String name -> new File(secrets, name).text }
def scope = classes.loadClass('com.cloudbees.plugins.credentials.CredentialsScope').GLOBAL // its folder and what is in it

def password = { String id, String description, String user, String secret ->
    classes.loadClass('com.cloudbees.plugins.credentials.impl.UsernamePasswordCredentialsImpl')
        .newInstance(scope, id, description, user, secret)
}
def file = { String id, String description ->
    def content = classes.loadClass('com.cloudbees.plugins.credentials.SecretBytes').fromRawBytes(new File(secrets, id).bytes)
    classes.loadClass('org.jenkinsci.plugins.plaincredentials.impl.FileCredentialsImpl')
        .newInstance(scope, id, description, id, content)
}

// Both folders clone. If the repository is public, REPOSITORY_USER is empty and the credential does not exist.
def clone = text('REPOSITORY_USER') ?
    [password('repository', 'may read REPOSITORY', text('REPOSITORY_USER'), text('REPOSITORY_PASSWORD'))] : []

[
    main    : clone + [
        password('registry', 'may push IMAGE', text('REGISTRY_USER'), text('REGISTRY_PASSWORD')),
        file('kubeconfig', 'may do in NAMESPACE what kubernetes/deployer-rbac.yaml says'),
        file('aws', 'the access key of the user jenkins, empty outside of AWS'),
    ],
    branches: clone,
].each { String name, List credentials ->
    def type = 'com.cloudbees.hudson.plugins.folder.properties.FolderCredentialsProvider$FolderCredentialsProperty'
    def folder = Jenkins.get().getItem(name) ?:
        Jenkins.get().createProject(classes.loadClass('com.cloudbees.hudson.plugins.folder.Folder'), name)
    folder.properties.removeAll(classes.loadClass(type))
    folder.addProperty(classes.loadClass(type).newInstance([credentials] as Object[]))
}
