/** A step that fails its stage. */
class StepFailed extends Exception {
    StepFailed(String message) { super(message) }
}
