// Two jobs of one repository, in Jenkins's Job DSL. Each is in the folder of folders.groovy that holds the credentials it may use.
def secret = { String name -> new File(System.getenv('SECRETS'), name).text }
def repository = secret('REPOSITORY')
def isPrivate = !secret('REPOSITORY_USER').empty

[main: [only: 'main', not: ''], branches: [only: '*', not: 'main']].each { String folder, Map<String, String> heads ->
    multibranchPipelineJob(folder + '/request-info') {
        branchSources {
            branchSource {
                source {
                    git {
                        id('request-info-' + folder)
                        remote(repository)
                        if (isPrivate) credentialsId('repository')
                        traits {
                            gitBranchDiscovery()
                            headWildcardFilter {
                                includes(heads.only)
                                excludes(heads.not)
                            }
                        }
                    }
                }
            }
        }
        orphanedItemStrategy { discardOldItems { numToKeep(5) } }
        // The first indexing can be lost while Jenkins starts; this one comes a minute later.
        triggers { periodicFolderTrigger { interval('1m') } }
    }
}
