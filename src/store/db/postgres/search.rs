//! Searches in logs, which end when they take too long.

use sqlx::postgres::PgConnection;
use sqlx::{Postgres as Driver, Transaction};

use super::Postgres;
use crate::store::db::Error;
use crate::store::db::failure::{CANCELED, sql_state};
use crate::store::db::log::MAX_SEARCH;

/// A transaction for one search, which the server ends when it takes too long, also if nobody waits for it any more.
pub(super) struct Search(Transaction<'static, Driver>);

impl Postgres {
    pub(super) async fn search(&self) -> Result<Search, Error> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = {}",
            MAX_SEARCH.as_millis()
        );
        // Nothing in it is anybody's but ours.
        Ok(Search(self.searchers.begin_with(sqlx::AssertSqlSafe(begin)).await?))
    }
}

impl Search {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    pub(super) async fn end<T>(self, found: Result<T, sqlx::Error>) -> Result<T, Error> {
        found.map_err(|error| if sql_state(&error) == Some(CANCELED) { Error::SearchTooLong } else { error.into() })
    }
}
