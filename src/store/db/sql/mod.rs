//! What both SQL databases do in the same way, written once and compiled for each.
//!
//! A backend (`sqlite.rs`, `postgres.rs`) has this folder as its module `sql`. What differs between the two is what the
//! backend brings along:
//!
//! | item | what it is |
//! |---|---|
//! | `sql!` | the text of its dialect: `sql!(sqlite: …, postgres: …)` |
//! | `Backend` | its type, for which the traits of the database are implemented here |
//! | `Driver`, `Connection` | those of sqlx |
//! | `PERSISTENT` | whether a connection keeps prepared statements |
//! | `Backend::{read, snapshot, permission_snapshot, write, search}` | connections and transactions for each purpose |
//! | `Backend::repeated` | work that may be done once more, where that helps |
//! | `WRITES_ALONE` | whether nobody else writes while a transaction does |
//! | `lock_tenants`, `lock_store` | who writes at the same time waits |
//! | `client_numbers` | numbers for new clients |
//! | `shared_clock`, `SharedClock` | the clock that all stores on the database share |
//! | `text` | a text as the database can hold it |
//!
//! Whoever writes what belongs to tenants locks their rows first, in the order of the slots, and counts a change
//! ([`next_change`]) after that. So the changes, and the events in the log of one tenant, become visible in the order of
//! their numbers, and nobody waits for somebody who waits for him.

/// A text of JSON as the type JSON. PostgreSQL has no character U+0000, not even in the JSON that it reads members of.
macro_rules! json {
    ($text:expr) => {
        sql!(sqlite: $text, postgres: concat!("replace(", $text, ", '\\u0000', '\\ufffd')::json"))
    };
}

/// A member of a text of JSON, as text.
macro_rules! member {
    ($text:expr, $member:literal) => {
        concat!("(", json!($text), " ->> '", $member, "')")
    };
}

/// Whether a member of a text of JSON is `true`.
macro_rules! flag {
    ($text:expr, $member:literal) => {
        sql!(
            sqlite: concat!("coalesce(", $text, " ->> '", $member, "', 0)"),
            postgres: concat!("coalesce((", json!($text), " ->> '", $member, "')::boolean, false)"),
        )
    };
}

/// What an API's text of JSON says of access for its users; NULL if it says nothing.
macro_rules! user_policy {
    ($text:expr) => {
        sql!(
            sqlite: concat!($text, " ->> '$.subject_type_authorization.user.policy'"),
            postgres: concat!("(", json!($text), " #>> '{subject_type_authorization,user,policy}')"),
        )
    };
}

/// The texts in a JSON array, as the column `value`.
macro_rules! texts {
    ($array:expr) => {
        sql!(
            sqlite: concat!("SELECT value FROM json_each(", $array, ")"),
            postgres: concat!("SELECT value FROM json_array_elements_text(", json!($array), ")"),
        )
    };
}

/// The integers in a JSON array, as the column `value`.
macro_rules! integers {
    ($array:expr) => {
        sql!(
            sqlite: concat!("SELECT value FROM json_each(", $array, ")"),
            postgres: concat!("SELECT value::bigint AS value FROM json_array_elements_text(", $array, "::json)"),
        )
    };
}

/// The elements of a JSON array as rows: `name.value` is JSON.
macro_rules! rows {
    ($array:expr, $name:literal) => {
        sql!(
            sqlite: concat!("json_each(", $array, ") AS ", $name),
            postgres: concat!("json_array_elements(", json!($array), ") AS ", $name, " (value)"),
        )
    };
}

/// The elements of an array that is a member of a text of JSON, as rows; none if it is no array.
macro_rules! elements {
    ($text:expr, $member:literal, $name:literal) => {
        sql!(
            sqlite: concat!("json_each(", $text, ", '$.", $member, "') AS ", $name),
            postgres: concat!("json_array_elements(", array_or_null!($text, $member), ") AS ", $name, " (value)"),
        )
    };
}

/// A member of a text of JSON where it is an array, and NULL where it is not.
#[allow(unused_macros, reason = "one of the two dialects needs it")]
macro_rules! array_or_null {
    ($text:expr, $member:literal) => {
        concat!(
            "CASE json_typeof(",
            json!($text),
            " -> '",
            $member,
            "') WHEN 'array' THEN ",
            json!($text),
            " -> '",
            $member,
            "' END"
        )
    };
}

/// The bytes that a text shows in hexadecimal.
macro_rules! bytes {
    ($text:expr) => {
        sql!(sqlite: concat!("unhex(", $text, ")"), postgres: concat!("decode(", $text, ", 'hex')"))
    };
}

/// Who the database is. Of a PostgreSQL server that was started anew, or of the one that took its place, nobody knows
/// that it has every change that its readers saw.
macro_rules! instance {
    () => {
        sql!(
            sqlite: "instance",
            postgres: "instance || to_hex(CAST(extract(epoch FROM pg_postmaster_start_time()) * 1000000 AS BIGINT))",
        )
    };
}

/// The smaller of two values.
macro_rules! least {
    ($one:expr, $other:expr) => {
        concat!(sql!(sqlite: "min(", postgres: "least("), $one, ", ", $other, ")")
    };
}

/// The greater of two values.
macro_rules! greatest {
    ($one:expr, $other:expr) => {
        concat!(sql!(sqlite: "max(", postgres: "greatest("), $one, ", ", $other, ")")
    };
}

mod buckets;
mod changes;
pub(super) mod client_changes;
pub(super) mod clients;
pub(super) mod documents;
mod network_acls;
pub(super) mod permissions;
pub(super) mod register;
mod sign_in_links;
mod signing_keys;
mod tenant_log;
mod tenants;
pub(super) mod transfer;
pub(super) mod unused_clients;

use std::time::Duration;

use serde::Serialize;
use sqlx::query::{Query, QueryAs, QueryScalar};

pub(super) use self::register::KnownTenants;
use super::{
    Backend, Connection, Driver, PERSISTENT, SharedClock, WRITES_ALONE, client_numbers, lock_store, lock_tenants,
    shared_clock, text,
};
use crate::store::db::{Error, unreadable};

/// Rows of a deleted tenant that are deleted in one transaction.
const DELETED_ROWS: i64 = 2_000;

/// How long others get between two such transactions: the longest that SQLite sleeps while it waits for a lock, so
/// that whoever waits for this one finds it free.
const DELETION_PAUSE: Duration = Duration::from_millis(100);

type Arguments = <Driver as sqlx::Database>::Arguments;

/// A statement.
pub(super) fn query<'q>(statement: &'static str) -> Query<'q, Driver, Arguments> {
    sqlx::query(statement).persistent(PERSISTENT)
}

/// A statement, with a row as `O`.
pub(super) fn query_as<'q, O>(statement: &'static str) -> QueryAs<'q, Driver, O, Arguments>
where
    O: for<'r> sqlx::FromRow<'r, <Driver as sqlx::Database>::Row>,
{
    sqlx::query_as(statement).persistent(PERSISTENT)
}

/// A statement, with the first column of a row as `O`.
pub(super) fn query_scalar<'q, O>(statement: &'static str) -> QueryScalar<'q, Driver, O, Arguments>
where
    (O,): for<'r> sqlx::FromRow<'r, <Driver as sqlx::Database>::Row>,
{
    sqlx::query_scalar(statement).persistent(PERSISTENT)
}

fn count(number: i64) -> Result<u64, Error> {
    number.try_into().map_err(|_| unreadable("a number"))
}

/// A tenant's slot, or a rule's priority.
fn small(number: i64) -> Result<u32, Error> {
    number.try_into().map_err(|_| unreadable("a number"))
}

/// A number that a column can hold. Larger ones do not occur: they are times and counters.
fn column(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn to_json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::Failed("a value cannot be written as JSON".to_owned()))
}

/// Counts one more change, and gives its number. Whoever counts after this waits for the end of the transaction, so that
/// nobody sees a change before an earlier one.
async fn next_change(connection: &mut Connection) -> Result<i64, Error> {
    Ok(query_scalar("UPDATE store SET changes = changes + 1 RETURNING changes").fetch_one(connection).await?)
}
