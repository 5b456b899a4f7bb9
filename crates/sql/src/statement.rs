//! What may be asked: one query, or a question about tables and plans. Everything else is refused by name before it is planned.

use datafusion::logical_expr::sqlparser::ast::Statement as Ast;
use datafusion::sql::parser::{DFParserBuilder, Statement};

use crate::SqlError;

/// Bytes of a statement. What is nested in it is bounded with it.
pub const SQL_BYTES_MAX: usize = 16 << 10;
/// Parentheses in parentheses, queries in queries.
const DEPTH_MAX: usize = 50;

/// The one statement of a text, if it only reads.
pub(crate) fn parse(sql: &str) -> Result<Statement, SqlError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(SqlError::TooLong { bytes: sql.len() });
    }
    let parser = DFParserBuilder::new(sql).with_recursion_limit(DEPTH_MAX).build();
    let mut statements = parser.and_then(|mut parser| parser.parse_statements()).map_err(SqlError::planning)?;
    match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => match refused(&statement) {
            None => Ok(statement),
            Some(what) => Err(SqlError::NotReading(what)),
        },
        (None, _) => Err(SqlError::Statements(0)),
        (Some(_), more) => Err(SqlError::Statements(more + 1)),
    }
}

/// Whether its rows are those of a query, which a limit can cut.
pub(crate) fn is_query(statement: &Statement) -> bool {
    matches!(statement, Statement::Statement(inner) if matches!(**inner, Ast::Query(_)))
}

/// The first words of what is not a question.
fn refused(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Explain(explain) => refused(&explain.statement),
        Statement::Statement(inner) => match &**inner {
            Ast::Query(_)
            | Ast::ShowTables { .. }
            | Ast::ShowColumns { .. }
            | Ast::ShowVariable { .. }
            | Ast::ShowFunctions { .. }
            | Ast::ExplainTable { .. } => None,
            other => Some(first_words(&other.to_string())),
        },
        other => Some(first_words(&other.to_string())),
    }
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ").chars().take(40).collect()
}
