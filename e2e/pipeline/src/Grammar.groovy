import org.codehaus.groovy.ast.ASTNode
import org.codehaus.groovy.ast.ClassNode
import org.codehaus.groovy.ast.CodeVisitorSupport
import org.codehaus.groovy.ast.expr.BinaryExpression
import org.codehaus.groovy.ast.expr.ClosureExpression
import org.codehaus.groovy.ast.expr.ConstantExpression
import org.codehaus.groovy.ast.expr.Expression
import org.codehaus.groovy.ast.expr.GStringExpression
import org.codehaus.groovy.ast.expr.MapExpression
import org.codehaus.groovy.ast.expr.MethodCallExpression
import org.codehaus.groovy.ast.expr.NamedArgumentListExpression
import org.codehaus.groovy.ast.expr.TupleExpression
import org.codehaus.groovy.ast.expr.VariableExpression
import org.codehaus.groovy.ast.stmt.BlockStatement
import org.codehaus.groovy.ast.stmt.ExpressionStatement
import org.codehaus.groovy.ast.stmt.Statement
import org.codehaus.groovy.classgen.GeneratorContext
import org.codehaus.groovy.control.CompilePhase
import org.codehaus.groovy.control.SourceUnit
import org.codehaus.groovy.control.customizers.CompilationCustomizer

/** What the runner knows of a Jenkinsfile. As in Jenkins, all of it is checked before anything runs. */
class Grammar extends CompilationCustomizer {
    private static final List<String> STEPS =
        ['checkout', 'sh', 'echo', 'error', 'timeout', 'withEnv', 'withCredentials', 'archiveArtifacts']

    /** Which directives may stand in which block. */
    private static final Map<String, List<String>> BLOCKS = [
        'the Jenkinsfile': ['pipeline'],
        pipeline         : ['agent', 'options', 'environment', 'stages', 'post'],
        stages           : ['stage'],
        stage            : ['when', 'options', 'environment', 'steps', 'post'],
        when             : ['branch'],
        options          : ['disableConcurrentBuilds', 'skipDefaultCheckout', 'timestamps', 'buildDiscarder', 'timeout'],
        post             : ['always', 'success', 'failure', 'unsuccessful', 'cleanup'],
        steps            : STEPS, always: STEPS, success: STEPS, failure: STEPS, unsuccessful: STEPS, cleanup: STEPS,
        timeout          : STEPS, withEnv: STEPS, withCredentials: STEPS,
    ].asImmutable()

    private static final Map<String, List<String>> REQUIRED =
        [pipeline: ['agent', 'stages'], stages: ['stage'], stage: ['steps'], when: ['branch']].asImmutable()

    /** The named arguments of everything that is called; what is not here takes none. */
    private static final Map<String, List<String>> ARGUMENTS = [
        disableConcurrentBuilds: ['abortPrevious'],
        timeout                : ['time', 'unit'],
        logRotator             : ['numToKeepStr', 'artifactNumToKeepStr', 'daysToKeepStr', 'artifactDaysToKeepStr'],
        checkout               : ['scm'],
        scmGit                 : ['branches', 'userRemoteConfigs', 'extensions'],
        cloneOption            : ['shallow', 'noTags', 'reference', 'depth'],
        cleanBeforeCheckout    : [],
        sh                     : ['script', 'label'],
        usernamePassword       : ['credentialsId', 'usernameVariable', 'passwordVariable'],
        string                 : ['credentialsId', 'variable'],
        file                   : ['credentialsId', 'variable'],
        credentials            : [],
        archiveArtifacts       : ['artifacts', 'allowEmptyArchive', 'fingerprint'],
    ].asImmutable()

    Grammar() {
        super(CompilePhase.CONVERSION)
    }

    @Override
    void call(SourceUnit source, GeneratorContext context, ClassNode classNode) {
        block('the Jenkinsfile', source.AST.statementBlock, null)
    }

    private void block(String name, BlockStatement code, ASTNode opening) {
        List<String> seen = []
        code.statements.each { Statement statement ->
            if (name == 'environment') {
                variable(statement)
                return
            }
            MethodCallExpression call = directive(statement, name)
            String directive = call.methodAsString
            if (!(directive in BLOCKS[name])) {
                refuse(call, "unknown directive or step `$directive` in $name; known here: ${BLOCKS[name].join(', ')}")
            }
            if (directive in seen && !(directive in [*STEPS, 'stage'])) refuse(call, "`$directive` stands twice in $name")
            seen << directive
            arguments(call, BLOCKS.containsKey(directive) || directive == 'environment' ? directive : null)
        }
        REQUIRED[name].findAll { !(it in seen) }.each { refuse(opening ?: code, "$name has no `$it`") }
    }

    private MethodCallExpression directive(Statement statement, String block) {
        Expression expression = statement instanceof ExpressionStatement ? statement.expression : null
        if (expression instanceof MethodCallExpression && expression.implicitThis) return expression
        refuse(statement, "only directives and steps may stand in $block, no other code")
    }

    private void variable(Statement statement) {
        Expression it = statement instanceof ExpressionStatement ? statement.expression : null
        if (!(it instanceof BinaryExpression && it.operation.text == '=' && it.leftExpression instanceof VariableExpression)) {
            refuse(statement, 'only NAME = value may stand in environment')
        }
        Expression value = ((BinaryExpression) it).rightExpression
        if (!(value instanceof ConstantExpression || value instanceof GStringExpression)) {
            refuse(statement, 'a value in environment is a quoted string')
        }
    }

    /** The closure that ends CALL's arguments is a block of its own; everything else in them is a value. */
    private void arguments(MethodCallExpression call, String block) {
        if (!(call.arguments instanceof TupleExpression)) return
        ((TupleExpression) call.arguments).expressions.each { Expression argument ->
            if (argument instanceof ClosureExpression) {
                if (block == null) refuse(argument, "`${call.methodAsString}` takes no block")
                this.block(block, (BlockStatement) argument.code, call)
            } else {
                named(call.methodAsString, argument)
                argument.visit(new CodeVisitorSupport() {
                    @Override
                    void visitMethodCallExpression(MethodCallExpression inner) {
                        String callee = inner.methodAsString
                        if (inner.implicitThis && !ARGUMENTS.containsKey(callee)) refuse(inner, "unknown `$callee`")
                        if (inner.implicitThis && inner.arguments instanceof TupleExpression) {
                            ((TupleExpression) inner.arguments).expressions.each { named(callee, it) }
                        }
                        super.visitMethodCallExpression(inner)
                    }
                })
            }
        }
    }

    private static void named(String callee, Expression argument) {
        if (!(argument instanceof MapExpression || argument instanceof NamedArgumentListExpression)) return
        ((MapExpression) argument).mapEntryExpressions.each {
            String name = it.keyExpression.text
            if (!(name in (ARGUMENTS[callee] ?: []))) refuse(it, "unknown argument `$name` of `$callee`")
        }
    }

    private static void refuse(ASTNode node, String why) throws Refused {
        throw new Refused("Jenkinsfile:${node.lineNumber}: $why")
    }
}
