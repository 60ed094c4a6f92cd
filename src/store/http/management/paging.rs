//! Lists in pages.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::parameters::Parameters;
use crate::store::http::error::ManagementError;

/// Entries on a page, unless the request says otherwise.
const PER_PAGE: u32 = 50;

/// Most entries on a page.
const MAX_PER_PAGE: u32 = 100;

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Paging {
    /// Number of the page, from 0.
    page: u32,
    /// Entries on it.
    pub per_page: u32,
    /// Whether the answer says how many there are.
    pub include_totals: bool,
}

/// A part of a list after a place that an earlier answer named.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// The place: what `next` said. 0 is the start.
    pub from: u64,
    /// How many are wanted.
    pub take: u32,
}

impl Paging {
    /// Entries before the page.
    pub fn start(self) -> u64 {
        u64::from(self.page).saturating_mul(self.per_page.into())
    }

    /// The part of a list that was asked for: the entries alone, or with `total` if that is told.
    pub fn answer<T: Serialize>(self, name: &'static str, total: Option<u64>, entries: Vec<T>) -> Response {
        match total {
            Some(total) => Json(Page { paging: self, total, name, entries }).into_response(),
            None => Json(entries).into_response(),
        }
    }

    fn parse(parameters: &[(String, String)]) -> Result<Self, ManagementError> {
        let mut paging = Self { page: 0, per_page: PER_PAGE, include_totals: false };
        for (name, value) in parameters {
            let bad = |expected: &str| ManagementError::invalid_query(format!("{name}: expected {expected}"));
            match name.as_str() {
                "page" => paging.page = value.parse().map_err(|_| bad("the number of a page, from 0"))?,
                "per_page" => paging.per_page = entries(name, value)?,
                "include_totals" => {
                    paging.include_totals = value.parse().map_err(|_| bad("true or false"))?;
                }
                _ => {}
            }
        }
        Ok(paging)
    }
}

/// A part of a list with how many entries there are in all: `start`, `limit`, `total`, and the entries under `name`.
pub struct Page<T> {
    /// Which part.
    pub paging: Paging,
    /// How many there are.
    pub total: u64,
    /// The list's name.
    pub name: &'static str,
    /// The part.
    pub entries: Vec<T>,
}

impl<T: Serialize> Serialize for Page<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut page = serializer.serialize_map(Some(4))?;
        page.serialize_entry("start", &self.paging.start())?;
        page.serialize_entry("limit", &self.paging.per_page)?;
        page.serialize_entry("total", &self.total)?;
        page.serialize_entry(self.name, &self.entries)?;
        page.end()
    }
}

/// A number of entries.
fn entries(name: &str, value: &str) -> Result<u32, ManagementError> {
    let number = value.parse().ok().filter(|number| (1..=MAX_PER_PAGE).contains(number));
    number.ok_or_else(|| ManagementError::invalid_query(format!("{name}: expected a whole number from 1 to 100")))
}

impl Checkpoint {
    /// The part that `from` and `take` ask for, in lists that have such; `None` if the query has neither.
    pub fn parse(Parameters(parameters): &Parameters) -> Result<Option<Self>, ManagementError> {
        let start = Self { from: 0, take: PER_PAGE };
        let mut checkpoint = None;
        for (name, value) in parameters {
            match name.as_str() {
                "take" => checkpoint.get_or_insert(start).take = entries(name, value)?,
                "from" => {
                    let place = value.parse();
                    checkpoint.get_or_insert(start).from = place.map_err(|_| {
                        ManagementError::invalid_query("from: expected where an earlier part of the list ended")
                    })?;
                }
                _ => {}
            }
        }
        Ok(checkpoint)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = ManagementError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ManagementError> {
        Self::parse(&Parameters::of(parts)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::Query;

    fn parse(text: &str) -> Result<Paging, String> {
        let uri = format!("/?{text}").parse().unwrap();
        let Query(parameters): Query<Vec<(String, String)>> = Query::try_from_uri(&uri).unwrap();
        Paging::parse(&parameters).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_page_is_what_the_query_says_and_the_rest_of_it_does_not_matter() {
        let paging = parse("fields=id&page=3&per_page=100&include_totals=true&page_size=x").unwrap();
        assert_eq!((paging.start(), paging.per_page, paging.include_totals), (300, 100, true));
        assert_eq!(parse("").unwrap(), Paging { page: 0, per_page: 50, include_totals: false });
        assert_eq!(parse("page=4294967295&per_page=100").unwrap().start(), 429_496_729_500);
    }

    #[test]
    fn a_part_begins_where_another_ended() {
        let parse = |name: &str, value: &str| {
            let parameters = Parameters(vec![("page".to_owned(), "1".to_owned()), (name.to_owned(), value.to_owned())]);
            Checkpoint::parse(&parameters).map_err(|error| format!("{error:?}"))
        };
        assert_eq!(parse("take", "3"), Ok(Some(Checkpoint { from: 0, take: 3 })));
        assert_eq!(parse("from", "7"), Ok(Some(Checkpoint { from: 7, take: 50 })));
        assert_eq!(parse("per_page", "x"), Ok(None));
        assert!(parse("take", "0").unwrap_err().contains("take: expected"));
        assert!(parse("from", "x").unwrap_err().contains("from: expected"));
    }

    #[test]
    fn a_bad_value_is_refused_and_its_parameter_named() {
        for (text, name) in [
            ("page=-1", "page"),
            ("page=x", "page"),
            ("page=", "page"),
            ("per_page=0", "per_page"),
            ("per_page=101", "per_page"),
            ("per_page=1.5", "per_page"),
            ("include_totals=1", "include_totals"),
            ("include_totals=yes", "include_totals"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(&format!("\"{name}: expected")) && error.contains("invalid_query_string"),
                "{error}"
            );
        }
    }
}
