/** The build cannot be begun: a wrong command line, or a Jenkinsfile that Jenkins, or this runner, would not take. */
class Refused extends Exception {
    Refused(String message) { super(message) }
}
