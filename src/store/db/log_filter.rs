//! What a search in a log asks for: the part of Lucene's query language that the hosted product documents.
//!
//! `type:sapi AND description:"Dynamic client registration"`, `NOT`, `OR`, parentheses, `client_name:my*`,
//! `date:[2026-01-01 TO 2026-02-01]`. Text compares without case.

use std::time::{Duration, SystemTime};

use tantivy_query_grammar::{Occur, UserInputAst, UserInputBound, UserInputLeaf, UserInputLiteral, parse_query};

/// Longest search, in bytes.
const MAX_SEARCH: usize = 1_000;

/// Most parentheses of a search: the parser goes one call deeper with each.
const MAX_PARENTHESES: usize = 20;

/// Most conditions: each is looked at for each event.
const MAX_TERMS: usize = 20;

/// What has to hold of an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogFilter {
    /// All of them.
    All(Vec<LogFilter>),
    /// One of them.
    Any(Vec<LogFilter>),
    /// Not this.
    Not(Box<LogFilter>),
    /// A member has a value; a list has it among its own.
    Is {
        /// The member.
        field: LogField,
        /// The value.
        value: String,
        /// Whether it only has to begin so.
        prefix: bool,
    },
    /// The event has the member.
    Has(LogField),
    /// It was between these two moments, both included, in UNIX milliseconds.
    Between(u64, u64),
    /// One of its texts has this in it.
    Mentions(String),
}

/// A member of an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogField {
    /// `type`
    Type,
    /// `log_id`
    Id,
    /// A sentence or a name, of which a part is enough: `description`, `client_name`, `user_agent`.
    Text(String),
    /// Another one: the names from the outside in, with dots between them.
    Data(String),
}

impl LogField {
    fn parse(name: &str) -> Result<Self, String> {
        let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match name {
            "type" => Ok(Self::Type),
            "log_id" | "_id" => Ok(Self::Id),
            "description" | "client_name" | "user_agent" => Ok(Self::Text(name.to_owned())),
            _ if name.len() <= 100 && name.split('.').all(is_plain) => Ok(Self::Data(name.to_owned())),
            _ => {
                Err("a field is a name of letters, digits and underscores, or several with dots between them"
                    .to_owned())
            }
        }
    }
}

impl LogFilter {
    /// Reads a search. The error says what is wrong with it.
    pub fn parse(search: &str) -> Result<Self, String> {
        if search.len() > MAX_SEARCH {
            return Err(format!("expected at most {MAX_SEARCH} bytes"));
        }
        if search.bytes().filter(|b| *b == b'(').count() > MAX_PARENTHESES {
            return Err(format!("expected at most {MAX_PARENTHESES} parentheses"));
        }
        let ast = parse_query(search).map_err(|_| {
            "expected a search such as type:sapi AND description:\"Dynamic client registration\"".to_owned()
        })?;
        let filter = Self::of(ast)?;
        if filter.terms() > MAX_TERMS {
            return Err(format!("expected at most {MAX_TERMS} terms"));
        }
        Ok(filter)
    }

    /// How many conditions it has.
    fn terms(&self) -> usize {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().map(Self::terms).fold(0, usize::saturating_add),
            Self::Not(filter) => filter.terms(),
            _ => 1,
        }
    }

    fn of(ast: UserInputAst) -> Result<Self, String> {
        match ast {
            UserInputAst::Boost(inner, _) => Self::of(*inner),
            UserInputAst::Leaf(leaf) => Self::of_leaf(*leaf),
            UserInputAst::Clause(clauses) => {
                let (mut all, mut any, mut has_must) = (Vec::new(), Vec::new(), false);
                for (occur, clause) in clauses {
                    let filter = Self::of(clause)?;
                    match occur {
                        Some(Occur::Must) => {
                            has_must = true;
                            all.push(filter);
                        }
                        Some(Occur::MustNot) => all.push(Self::Not(Box::new(filter))),
                        Some(Occur::Should) | None => any.push(filter),
                    }
                }
                // Beside what must hold, what should hold only sorts, and there is nothing to sort.
                if !has_must {
                    match (any.len(), any.pop()) {
                        (_, None) => {}
                        (1, Some(only)) => all.insert(0, only),
                        (_, Some(last)) => all.insert(0, Self::Any(any.into_iter().chain([last]).collect())),
                    }
                }
                Ok(match (all.len(), all.pop()) {
                    (1, Some(only)) => only,
                    (_, last) => Self::All(all.into_iter().chain(last).collect()),
                })
            }
        }
    }

    fn of_leaf(leaf: UserInputLeaf) -> Result<Self, String> {
        match leaf {
            UserInputLeaf::All => Ok(Self::All(Vec::new())),
            UserInputLeaf::Literal(literal) => Self::of_literal(literal),
            UserInputLeaf::Set { field, elements } => {
                let one = |value| Self::is(field.as_deref(), value, false);
                Ok(Self::Any(elements.into_iter().map(one).collect::<Result<_, _>>()?))
            }
            UserInputLeaf::Exists { field } => Ok(Self::Has(LogField::parse(&field)?)),
            UserInputLeaf::Range { field, lower, upper } if field.as_deref() == Some("date") => {
                let first = match lower {
                    UserInputBound::Unbounded => 0,
                    UserInputBound::Inclusive(text) => span(&text)?.0,
                    UserInputBound::Exclusive(text) => span(&text)?.1.saturating_add(1),
                };
                let last = match upper {
                    UserInputBound::Unbounded => u64::MAX,
                    UserInputBound::Inclusive(text) => span(&text)?.1,
                    UserInputBound::Exclusive(text) => span(&text)?.0.saturating_sub(1),
                };
                Ok(Self::Between(first, last))
            }
            UserInputLeaf::Range { .. } => Err("only date has ranges".to_owned()),
            UserInputLeaf::Regex { .. } => Err("regular expressions are not supported".to_owned()),
        }
    }

    fn of_literal(literal: UserInputLiteral) -> Result<Self, String> {
        let UserInputLiteral { field_name, phrase, prefix, .. } = literal;
        match field_name.as_deref() {
            Some("date") => span(&phrase).map(|(first, last)| Self::Between(first, last)),
            field => Self::is(field, phrase, prefix),
        }
    }

    fn is(field: Option<&str>, value: String, prefix: bool) -> Result<Self, String> {
        // A `*` behind a text without quotation marks.
        let (value, prefix) = match value.strip_suffix('*') {
            Some(start) if !start.is_empty() => (start.to_owned(), true),
            _ => (value, prefix),
        };
        match field {
            None => Ok(Self::Mentions(value)),
            Some(name) if value == "*" => Ok(Self::Has(LogField::parse(name)?)),
            Some(name) => Ok(Self::Is { field: LogField::parse(name)?, value, prefix }),
        }
    }
}

/// The first and the last millisecond of a day, or of a moment: RFC 3339, with or without the time.
fn span(text: &str) -> Result<(u64, u64), String> {
    const DAY: u64 = 86_400_000;
    let millis = |text: &str| {
        let time: SystemTime = humantime::parse_rfc3339_weak(text).ok()?;
        let since: Duration = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    };
    let bad = || "date: expected a day such as 2026-01-31 or a moment such as 2026-01-31T12:00:00.000Z".to_owned();
    if text.len() == 10 {
        let first = millis(&format!("{text}T00:00:00Z")).ok_or_else(bad)?;
        Ok((first, first.saturating_add(DAY).saturating_sub(1)))
    } else {
        millis(text).map(|moment| (moment, moment)).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::LogFilter::*;
    use super::*;

    fn is(field: &str, value: &str) -> LogFilter {
        Is { field: LogField::parse(field).unwrap(), value: value.to_owned(), prefix: false }
    }

    fn parse(search: &str) -> LogFilter {
        LogFilter::parse(search).unwrap_or_else(|error| panic!("{search}: {error}"))
    }

    #[test]
    fn the_hosted_pages_search_is_understood() {
        let search = r#"type:sapi AND description:"Dynamic client registration""#;
        assert_eq!(parse(search), All(vec![is("type", "sapi"), is("description", "Dynamic client registration")]));
    }

    #[test]
    fn operators_join_what_they_join() {
        let (a, b, c) = (|| is("a", "1"), || is("b", "2"), || is("c", "3"));
        assert_eq!(parse("a:1"), a());
        assert_eq!(parse("a:1 OR b:2"), Any(vec![a(), b()]));
        assert_eq!(parse("a:1 b:2"), Any(vec![a(), b()]));
        assert_eq!(parse("a:1 AND (b:2 OR c:3)"), All(vec![a(), Any(vec![b(), c()])]));
        assert_eq!(parse("NOT a:1"), Not(Box::new(a())));
        assert_eq!(parse("a:1 NOT b:2"), All(vec![a(), Not(Box::new(b()))]));
        assert_eq!(parse("a:1 -b:2 c:3"), All(vec![Any(vec![a(), c()]), Not(Box::new(b()))]));
        assert_eq!(parse("a:1 AND NOT b:2"), All(vec![a(), Not(Box::new(b()))]));
        assert_eq!(parse("-a:1"), Not(Box::new(a())));
        assert_eq!(parse("hello"), Mentions("hello".to_owned()));
        assert_eq!(parse("details.country:CH"), is("details.country", "CH"));
        let starts = Is { field: LogField::Text("client_name".to_owned()), value: "my".to_owned(), prefix: true };
        assert_eq!(parse("client_name:my*"), starts);
        assert_eq!(parse("client_id:*"), Has(LogField::Data("client_id".to_owned())));
    }

    #[test]
    fn a_date_is_a_day_or_a_moment_and_has_ranges() {
        let day = 1_767_225_600_000;
        assert_eq!(parse("date:[2026-01-01 TO 2026-01-02]"), Between(day, day + 2 * 86_400_000 - 1));
        assert_eq!(parse("date:{2026-01-01 TO *}"), Between(day + 86_400_000, u64::MAX));
        assert_eq!(parse("date:[* TO 2026-01-01}"), Between(0, day - 1));
        assert_eq!(parse("date:\"2026-01-01T00:00:01.500Z\""), Between(day + 1_500, day + 1_500));
    }

    #[test]
    fn what_is_no_search_is_refused_and_takes_no_time() {
        let deep = format!("{}a:1{}", "(".repeat(21), ")".repeat(21));
        let many: String = (0..21).map(|n| format!("z:{n} ")).collect();
        for bad in
            ["date:yesterday", "date:[x TO y]", "a b:[1 TO 2]", "a-b!:1", "x:\"", &"a ".repeat(600), &deep, &many]
        {
            assert!(LogFilter::parse(bad).is_err(), "{bad}: {:?}", LogFilter::parse(bad));
        }
        let started = std::time::Instant::now();
        let deep = format!("{}a:1", "(".repeat(20));
        for bad in [deep, "NOT ".repeat(240), "a AND ".repeat(160), "\"".repeat(900), "[".repeat(900)] {
            let _ = LogFilter::parse(&bad);
        }
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
}
