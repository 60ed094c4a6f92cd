//! Searches in logs, which end when they take too long.

use std::time::Instant;

use sqlx::Sqlite as Driver;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteConnection;

use super::Sqlite;
use crate::store::db::Error;
use crate::store::db::failure::sqlite_code;
use crate::store::db::log::MAX_SEARCH;

/// Instructions of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// SQLite's result code of a statement that was ended.
const INTERRUPTED: u32 = 9;

/// A connection for one search, which ends it when it takes too long, also if nobody waits for it any more.
pub(super) struct Search(PoolConnection<Driver>);

impl Sqlite {
    pub(super) async fn search(&self) -> Result<Search, Error> {
        let mut connection = self.searchers.acquire().await?;
        let started = Instant::now();
        connection.lock_handle().await?.set_progress_handler(STEPS, move || started.elapsed() < MAX_SEARCH);
        Ok(Search(connection))
    }
}

impl Search {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.0
    }

    pub(super) async fn end<T>(mut self, found: Result<T, sqlx::Error>) -> Result<T, Error> {
        self.0.lock_handle().await?.remove_progress_handler();
        found
            .map_err(|error| if sqlite_code(&error) == Some(INTERRUPTED) { Error::SearchTooLong } else { error.into() })
    }
}
