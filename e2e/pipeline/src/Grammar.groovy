import java.util.concurrent.TimeUnit
import org.codehaus.groovy.ast.ASTNode
import org.codehaus.groovy.ast.ClassNode
import org.codehaus.groovy.ast.CodeVisitorSupport
import org.codehaus.groovy.ast.expr.BinaryExpression
import org.codehaus.groovy.ast.expr.ClosureExpression
import org.codehaus.groovy.ast.expr.ConstantExpression
import org.codehaus.groovy.ast.expr.ConstructorCallExpression
import org.codehaus.groovy.ast.expr.Expression
import org.codehaus.groovy.ast.expr.GStringExpression
import org.codehaus.groovy.ast.expr.MapExpression
import org.codehaus.groovy.ast.expr.MethodCallExpression
import org.codehaus.groovy.ast.expr.PropertyExpression
import org.codehaus.groovy.ast.expr.TupleExpression
import org.codehaus.groovy.ast.expr.VariableExpression
import org.codehaus.groovy.ast.stmt.BlockStatement
import org.codehaus.groovy.ast.stmt.ExpressionStatement
import org.codehaus.groovy.ast.stmt.Statement
import org.codehaus.groovy.classgen.GeneratorContext
import org.codehaus.groovy.control.CompilePhase
import org.codehaus.groovy.control.SourceUnit
import org.codehaus.groovy.control.customizers.CompilationCustomizer

/**
 * The directives and steps that the runner knows. As in Jenkins, the whole file is checked before anything runs.
 *
 * The source for what Jenkins refuses is ModelParser and ModelValidatorImpl of pipeline-model-definition
 * 2.2277.v00573e73ddf1. 57 small Jenkinsfiles were tried in a Jenkins 2.568.2.
 */
class Grammar extends CompilationCustomizer {
    private static final List<String> STEPS =
        ['checkout', 'sh', 'echo', 'error', 'timeout', 'withEnv', 'withCredentials', 'archiveArtifacts', 'script']

    /** The directives that each block may contain. */
    private static final Map<String, List<String>> BLOCKS = [
        'the Jenkinsfile'   : ['pipeline'],
        pipeline            : ['agent', 'options', 'environment', 'stages', 'post'],
        stages              : ['stage'],
        stage               : ['when', 'options', 'environment', 'steps', 'post'],
        when                : ['branch'],
        options             : ['disableConcurrentBuilds', 'skipDefaultCheckout', 'timestamps', 'buildDiscarder', 'timeout'],
        'options of a stage': ['skipDefaultCheckout', 'timestamps', 'timeout'],
        post                : ['always', 'success', 'failure', 'unsuccessful', 'cleanup'],
        steps               : STEPS, always: STEPS, success: STEPS, failure: STEPS, unsuccessful: STEPS, cleanup: STEPS,
        timeout             : STEPS, withEnv: STEPS, withCredentials: STEPS,
        environment         : [], script: [],
    ].asImmutable()

    private static final List<String> MAY_BE_EMPTY = ['timeout', 'withEnv', 'withCredentials', 'script']

    private static final Map<String, List<String>> REQUIRED =
        [pipeline: ['agent', 'stages'], stage: ['steps']].asImmutable()

    /**
     * The arguments of everything that is called, with their types. What is not listed takes no arguments. An argument with !
     * is required. If only one argument is required, it may be given without its name.
     */
    private static final Map<String, Map<String, Class>> ARGUMENTS = [
        agent                  : ['type!': Object],
        stage                  : ['name!': String],
        branch                 : ['pattern!': String],
        disableConcurrentBuilds: [abortPrevious: Boolean],
        buildDiscarder         : ['strategy!': Object],
        timeout                : ['time!': Integer, unit: TimeUnit],
        logRotator             : [
            numToKeepStr: String, artifactNumToKeepStr: String, daysToKeepStr: String, artifactDaysToKeepStr: String,
        ],
        checkout               : ['scm!': Object],
        scmGit                 : [branches: Object, userRemoteConfigs: Object, extensions: Object],
        cloneOption            : [shallow: Boolean, noTags: Boolean, reference: String, depth: Integer],
        cleanBeforeCheckout    : [:],
        sh                     : ['script!': String, label: String, returnStdout: Boolean],
        echo                   : ['message!': String],
        error                  : ['message!': String],
        withEnv                : ['overrides!': Object],
        withCredentials        : ['bindings!': Object],
        usernamePassword       : ['credentialsId!': String, 'usernameVariable!': String, 'passwordVariable!': String],
        string                 : ['credentialsId!': String, 'variable!': String],
        file                   : ['credentialsId!': String, 'variable!': String],
        archiveArtifacts       : ['artifacts!': String, allowEmptyArchive: Boolean, fingerprint: Boolean],
    ].asImmutable()

    /** The objects whose properties may be read. Like Jenkins's sandbox, the runner refuses properties of classes. */
    private static final List<String> OBJECTS = ['env', 'scm', 'currentBuild']

    Grammar() {
        super(CompilePhase.CONVERSION)
    }

    @Override
    void call(SourceUnit source, GeneratorContext context, ClassNode classNode) {
        block('the Jenkinsfile', source.AST.statementBlock, null)
    }

    private void block(String name, BlockStatement code, ASTNode opening) {
        if (!code.statements && !(name in MAY_BE_EMPTY)) refuse(opening ?: code, "$name is empty")
        Set<String> seen = []
        code.statements.each { Statement statement ->
            if (name == 'environment') {
                String variable = variable(statement)
                if (!seen.add(variable)) refuse(statement, "the variable `$variable` appears twice in environment")
            } else if (name == 'script') {
                description(statement)
            } else {
                MethodCallExpression call = directive(statement, name)
                String directive = call.methodAsString
                if (!(directive in BLOCKS[name])) {
                    refuse(call, "unknown directive or step `$directive` in $name; known here: ${BLOCKS[name].join(', ')}")
                }
                if (name.startsWith('options')) arguments(call, null)
                else arguments(call, directive == 'options' && name == 'stage' ? 'options of a stage' : directive)
                String only = directive == 'stage' ? "the stage `${call.arguments.expressions[0].text}`" : "`$directive`"
                if (!seen.add(only) && !(directive in STEPS)) refuse(call, "$only appears twice in $name")
            }
        }
        REQUIRED[name].findAll { !("`$it`".toString() in seen) }.each { refuse(opening ?: code, "$name has no `$it`") }
    }

    private static MethodCallExpression directive(Statement statement, String block) {
        Expression expression = statement instanceof ExpressionStatement ? statement.expression : null
        if (expression instanceof MethodCallExpression && expression.implicitThis) return expression
        refuse(statement, "only directives and steps are allowed in $block")
    }

    private static BinaryExpression assignment(Statement statement, String what) {
        Expression it = statement instanceof ExpressionStatement ? statement.expression : null
        if (it instanceof BinaryExpression && it.operation.text == '=') return it
        refuse(statement, "only $what")
    }

    /** The name of the variable that STATEMENT sets. */
    private static String variable(Statement statement) {
        BinaryExpression it = assignment(statement, 'NAME = value is allowed in environment')
        String name = it.leftExpression.text
        if (!(it.leftExpression instanceof VariableExpression && name ==~ /[a-zA-Z_][a-zA-Z0-9_]*/)) {
            refuse(statement, "`$name` is not a valid name of a variable")
        }
        if (!(it.rightExpression instanceof ConstantExpression || it.rightExpression instanceof GStringExpression)) {
            refuse(statement, 'a value in environment is a quoted string')
        }
        value(it.rightExpression)
        name
    }

    private static void description(Statement statement) {
        String known = 'currentBuild.description = value is allowed in script'
        BinaryExpression it = assignment(statement, known)
        if (it.leftExpression.text != 'currentBuild.description') refuse(statement, "only $known")
        value(it.rightExpression)
    }

    /** If CALL takes a block, the closure at the end of its arguments is the block NAME. All other arguments are values. */
    private void arguments(MethodCallExpression call, String name) {
        List<Expression> given = given(call)
        if (given && given.last() instanceof ClosureExpression) {
            if (!BLOCKS.containsKey(name)) refuse(given.last(), "`${call.methodAsString}` takes no block")
            block(name, (BlockStatement) ((ClosureExpression) given.last()).code, call)
            given = given.init()
        }
        signature(call, given)
        given.each { value(it) }
    }

    private static List<Expression> given(MethodCallExpression call) {
        call.arguments instanceof TupleExpression ? ((TupleExpression) call.arguments).expressions : []
    }

    /** Whether CALL takes the arguments GIVEN. A value that is known only at run time is not checked. */
    private static void signature(MethodCallExpression call, List<Expression> given) {
        String callee = call.methodAsString
        Map<String, Class> known = (ARGUMENTS[callee] ?: [:]).collectEntries { name, type -> [(name - '!'): type] }
        List<String> required = ARGUMENTS[callee]?.keySet()?.findAll { it.endsWith('!') }?.collect { it - '!' } ?: []
        Map<String, Expression> named = [:]
        given.each { Expression argument ->
            if (argument instanceof MapExpression) {
                argument.mapEntryExpressions.each { named[it.keyExpression.text] = it.valueExpression }
            } else if (given.size() == 1 && required.size() == 1) {
                named[required[0]] = argument
            } else {
                String names = known.keySet().join(', ')
                refuse(argument, names ? "the arguments of `$callee` need names: $names" : "`$callee` takes no arguments")
            }
        }
        named.each { String name, Expression value ->
            if (!known.containsKey(name)) refuse(value, "unknown argument `$name` of `$callee`")
            Class type = known[name]
            if (callee == 'stage' && !(value instanceof ConstantExpression)) {
                refuse(value, 'the name of a stage is a literal string')
            }
            if (value instanceof ConstantExpression && !literal(value.value, type)) {
                refuse(value, "`$name` of `$callee` must be of type $type.simpleName, and `$value.text` is not")
            }
        }
        required.findAll { !named.containsKey(it) }.each { refuse(call, "`$callee` has no `$it`") }
    }

    private static boolean literal(Object value, Class type) {
        type == TimeUnit ? value in TimeUnit.values()*.name() : type.isInstance(value)
    }

    /** Checks the calls and properties in a VALUE: steps with their arguments are allowed, methods and properties of classes are not. */
    private static void value(Expression value) {
        value.visit(new CodeVisitorSupport() {
            @Override
            void visitMethodCallExpression(MethodCallExpression call) {
                if (!call.implicitThis) outside(call)
                if (!ARGUMENTS.containsKey(call.methodAsString)) refuse(call, "unknown `$call.methodAsString`")
                signature(call, given(call))
                super.visitMethodCallExpression(call)
            }

            @Override
            void visitConstructorCallExpression(ConstructorCallExpression call) { outside(call) }

            @Override
            void visitPropertyExpression(PropertyExpression property) {
                if (!(property.objectExpression.text in OBJECTS)) outside(property)
            }
        })
    }

    private static void outside(Expression it) {
        String known = OBJECTS.join(', ')
        refuse(it, "`$it.text` is unknown here, and Jenkins's sandbox refuses what is not on its list; known here are the properties of $known")
    }

    private static void refuse(ASTNode node, String why) throws Refused {
        throw new Refused("Jenkinsfile:${node.lineNumber}: $why")
    }
}
