/** The build cannot start: the command line is wrong, or Jenkins or this runner refuses the Jenkinsfile. */
class Refused extends Exception {
    Refused(String message) { super(message) }
}
