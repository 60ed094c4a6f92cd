//! The one call of a registration: what goes to the store, and what its answer means.

use super::environment::{CallAnswer, CallResponse, CallResult, DispatchError};
use super::reason::Reason;
use crate::edge_api::{
    ClientControls, DISABLED, ErrorBody, OUTCOME_HEADER, PROTOCOL_HEADER, QUOTA_USED_UP, RateLimited, SPOKEN_VERSIONS,
    UNKNOWN_CLIENT,
};

/// Longest answer to a registration that is read, in bytes.
pub const MAX_REGISTRATION_ANSWER: usize = 64 * 1024;

/// Longest page of changes that is read, in bytes. One tenant's settings must fit.
pub const MAX_CHANGES_ANSWER: usize = 16 * 1024 * 1024;

/// Why the store gave no usable answer. Outside, all of them are the same 503.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// Envoy has no cluster of the configured name.
    NoCluster,
    /// No host of the cluster is healthy.
    NoHealthyHost,
    /// No connection.
    ConnectError,
    /// No answer in time.
    Timeout,
    /// The cluster's circuit breaker is open.
    Overflow,
    /// The stream ended before the answer.
    Reset,
    /// The answer was too large.
    Oversized,
    /// The answer did not come from a store.
    NotOurs,
    /// The store speaks another version.
    WrongVersion,
    /// The store does not accept the edge's token.
    Unauthorized,
    /// The store has another client of that id.
    Conflict,
    /// The store could not do it, or answered nonsense.
    StoreError,
}

impl Failure {
    /// Why, in one word.
    pub fn reason(self) -> Reason {
        match self {
            Self::NoCluster => Reason::NoCluster,
            Self::NoHealthyHost => Reason::NoHealthyHost,
            Self::ConnectError => Reason::ConnectError,
            Self::Timeout => Reason::Timeout,
            Self::Overflow => Reason::Overflow,
            Self::Reset => Reason::Reset,
            Self::Oversized => Reason::Oversized,
            Self::NotOurs => Reason::NotOurs,
            Self::WrongVersion => Reason::WrongVersion,
            Self::Unauthorized => Reason::Unauthorized,
            Self::Conflict => Reason::Conflict,
            Self::StoreError => Reason::StoreError,
        }
    }

    /// What the operator can do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoCluster => "store.cluster names no cluster of this Envoy, or one whose address is not resolved yet",
            Self::NoHealthyHost => "no host of the store's cluster is healthy: is dcr-store running?",
            Self::ConnectError => "no connection to the store: is dcr-store running, is the address right?",
            Self::Timeout => "the store did not answer within store.timeout_ms",
            Self::Overflow => "the circuit breaker of the store's cluster is open",
            Self::Reset => "the connection to the store broke before it answered",
            Self::Oversized => "the store's answer is too large",
            Self::NotOurs => "what answered is not a dcr-store: check the address of the store's cluster",
            Self::WrongVersion => {
                "the store speaks another version: bring filter and dcr-store to the same release, or to two that follow \
                 each other"
            }
            Self::Unauthorized => {
                "the store does not accept the edge's token: set DCR_EDGE_TOKEN from `dcr-store token --kind edge`"
            }
            Self::Conflict => "the store has another client of the same id",
            Self::StoreError => "the store could not do it: see its log",
        }
    }
}

impl From<DispatchError> for Failure {
    fn from(error: DispatchError) -> Self {
        match error {
            DispatchError::NoCluster => Self::NoCluster,
            DispatchError::NoHealthyHost => Self::NoHealthyHost,
        }
    }
}

/// What came back from the store: a success with its body, or a refusal to pass on.
#[derive(Debug, Eq, PartialEq)]
pub enum Answer {
    /// 200 or 201.
    Success(Vec<u8>),
    /// It refused what the edge accepted.
    Refused(StoreRefusal),
    /// All edges together have registered as many clients as the tenant may.
    RateLimited {
        /// Nanoseconds until the next token arrives.
        next_token_in: u64,
    },
}

/// A refusal of the store, to be passed on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreRefusal {
    /// Why, in one word.
    pub reason: Reason,
    /// 400 or 403.
    pub status: u16,
    /// The code.
    pub error: String,
    /// The sentence.
    pub error_description: String,
}

/// Whether a store answered in a version that this release speaks.
fn is_spoken(response: &CallResponse) -> bool {
    let version = response.header(PROTOCOL_HEADER);
    SPOKEN_VERSIONS.iter().any(|spoken| version == Some(spoken.as_bytes()))
}

/// Tells whose answer it is and what it means. `most` is the longest body that is read.
pub fn understand(answer: CallResult, most: usize) -> Result<Answer, Failure> {
    let Some(response) = answer? else { return Err(Failure::Reset) };
    match response.header(PROTOCOL_HEADER) {
        None => return Err(without_marker(&response)),
        Some(_) if !is_spoken(&response) => return Err(Failure::WrongVersion),
        Some(_) if response.body.len() > most => return Err(Failure::Oversized),
        Some(_) => {}
    }
    match response.status() {
        200 | 201 => Ok(Answer::Success(response.body)),
        status @ (400 | 403) => {
            // Only what is well-formed is passed on; a broken refusal is no reason to show its bytes to a client.
            let body: ErrorBody = serde_json::from_slice(&response.body).map_err(|_| Failure::StoreError)?;
            let ErrorBody { error, error_description } = body;
            let reason = refused_for(&error, response.header(OUTCOME_HEADER)).ok_or(Failure::StoreError)?;
            Ok(Answer::Refused(StoreRefusal { reason, status, error, error_description }))
        }
        429 => {
            let body: RateLimited = parse(&response.body)?;
            Ok(Answer::RateLimited { next_token_in: body.next_token_in_ms.saturating_mul(1_000_000) })
        }
        401 => Err(Failure::Unauthorized),
        409 => Err(Failure::Conflict),
        _ => Err(Failure::StoreError),
    }
}

/// Whether a call that came to this may come to more if it is sent again: the store did not say what it thinks of it.
pub fn is_worth_a_repeat(answer: &CallAnswer) -> bool {
    let Some(response) = answer else { return true };
    let is_overflow = || response.header(PROTOCOL_HEADER).is_none() && without_marker(response) == Failure::Overflow;
    // Where there is too much to do already, a repeat is too much, too.
    matches!(response.status(), 502..=504) && !is_overflow()
}

/// What a look for a client came to.
#[derive(Debug)]
pub enum LookedUp {
    /// The client.
    Client(Box<ClientControls>),
    /// The tenant has no client of that id.
    Nobody,
}

/// Longest answer to a look for a client that is read, in bytes.
pub const MAX_CLIENT_ANSWER: usize = 1024 * 1024;

/// What a look for a client came to.
pub fn looked_up(answer: CallResult) -> Result<LookedUp, Failure> {
    let is_unknown = |response: &CallResponse| {
        let says_so = |body: ErrorBody| body.error == UNKNOWN_CLIENT;
        is_spoken(response) && response.status() == 404 && serde_json::from_slice(&response.body).is_ok_and(says_so)
    };
    if matches!(&answer, Ok(Some(response)) if is_unknown(response)) {
        return Ok(LookedUp::Nobody);
    }
    match understand(answer, MAX_CLIENT_ANSWER)? {
        Answer::Success(body) => parse(&body).map(LookedUp::Client),
        Answer::Refused(_) | Answer::RateLimited { .. } => Err(Failure::StoreError),
    }
}

/// The reason for an error of the store that is the client's. Any other is a fault between the two ends, of which a
/// client need not read.
fn refused_for(error: &str, outcome: Option<&[u8]>) -> Option<Reason> {
    Some(match error {
        "invalid_client_metadata" => Reason::InvalidClientMetadata,
        "invalid_redirect_uri" => Reason::InvalidRedirectUri,
        "invalid_software_statement" => Reason::InvalidSoftwareStatement,
        "access_denied" if outcome == Some(DISABLED.as_bytes()) => Reason::RegistrationDisabled,
        "access_denied" if outcome == Some(QUOTA_USED_UP.as_bytes()) => Reason::QuotaUsedUp,
        // An older store.
        "access_denied" => Reason::StoreRefused,
        _ => return None,
    })
}

/// What became of something that the store was told, without anything to read in its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Receipt {
    /// It took it.
    Accepted,
    /// It will never take it, for the reason that this status says.
    Refused(u16),
    /// It could not, or did not answer: it may take it later.
    Failed,
}

/// What became of something that the store was told.
pub fn receipt(answer: &CallAnswer) -> Receipt {
    let Some(response) = answer else { return Receipt::Failed };
    match (is_spoken(response), response.status()) {
        (true, 204) => Receipt::Accepted,
        // A token or the load can be mended, and then it is taken.
        (true, status @ 400..500) if !matches!(status, 401 | 403 | 408 | 429) => Receipt::Refused(status),
        _ => Receipt::Failed,
    }
}

/// Reads a success's body.
pub fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|_| Failure::StoreError)
}

/// Envoy's router answers a failed call itself, with a 503 or 504 and a text of its own.
pub fn without_marker(response: &CallResponse) -> Failure {
    let says = |text: &str| response.body.windows(text.len()).any(|window| window == text.as_bytes());
    match response.status() {
        503 if says("no healthy upstream") => Failure::NoHealthyHost,
        503 if says("upstream connect error") || says("reset reason") => {
            if says("overflow") {
                Failure::Overflow
            } else if says("connection failure") || says("connection timeout") {
                Failure::ConnectError
            } else {
                Failure::Reset
            }
        }
        504 if says("upstream request timeout") => Failure::Timeout,
        _ => Failure::NotOurs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: &str, marker: Option<&str>, body: &str) -> CallAnswer {
        let mut headers = vec![(":status".to_owned(), status.as_bytes().to_vec())];
        if let Some(version) = marker {
            headers.push((PROTOCOL_HEADER.to_owned(), version.as_bytes().to_vec()));
        }
        Some(CallResponse { headers, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn every_failure_of_a_call_has_a_class_of_its_own() {
        let failure = |answer| understand(Ok(answer), 100).unwrap_err();
        let connect = "upstream connect error or disconnect/reset before headers. reset reason: ";
        assert_eq!(failure(None), Failure::Reset);
        assert_eq!(failure(response("503", None, "no healthy upstream")), Failure::NoHealthyHost);
        assert_eq!(
            failure(response("503", None, &format!("{connect}remote connection failure"))),
            Failure::ConnectError
        );
        assert_eq!(failure(response("503", None, &format!("{connect}connection timeout"))), Failure::ConnectError);
        assert_eq!(failure(response("503", None, &format!("{connect}connection termination"))), Failure::Reset);
        assert_eq!(failure(response("503", None, &format!("{connect}overflow"))), Failure::Overflow);
        assert_eq!(failure(response("504", None, "upstream request timeout")), Failure::Timeout);
        assert_eq!(failure(response("503", None, "down for maintenance")), Failure::NotOurs);
        assert_eq!(failure(response("201", None, "{}")), Failure::NotOurs);
        assert_eq!(failure(response("201", Some("3"), "{}")), Failure::WrongVersion);
        assert_eq!(failure(response("201", Some("1"), &"x".repeat(101))), Failure::Oversized);
        assert_eq!(failure(response("401", Some("1"), "")), Failure::Unauthorized);
        assert_eq!(failure(response("409", Some("1"), "")), Failure::Conflict);
        assert_eq!(failure(response("503", Some("1"), "")), Failure::StoreError);
        assert_eq!(failure(response("400", Some("1"), "<html>")), Failure::StoreError);
        let internal = r#"{"error":"invalid_request","error_description":"d"}"#;
        assert_eq!(failure(response("400", Some("1"), internal)), Failure::StoreError);
        assert_eq!(failure(response("x", Some("1"), "")), Failure::StoreError);
    }

    #[test]
    fn what_is_sent_again_had_no_definite_answer_and_does_not_meet_too_much_to_do() {
        let connect = "upstream connect error or disconnect/reset before headers. reset reason: ";
        for (answer, is_repeated) in [
            (None, true),
            (response("503", None, "no healthy upstream"), true),
            (response("503", None, &format!("{connect}remote connection failure")), true),
            (response("503", None, &format!("{connect}overflow")), false),
            (response("504", None, "upstream request timeout"), true),
            (response("502", None, "<html>"), true),
            (response("503", Some("1"), "{}"), true),
            (response("503", Some("1"), "reset reason: overflow"), true),
            (response("500", Some("1"), "{}"), false),
            (response("201", Some("1"), "{}"), false),
            (response("201", None, "{}"), false),
            (response("400", Some("1"), "{}"), false),
            (response("401", Some("1"), "{}"), false),
            (response("409", Some("1"), "{}"), false),
            (response("429", Some("1"), "{}"), false),
        ] {
            assert_eq!(is_worth_a_repeat(&answer), is_repeated, "{answer:?}");
        }
    }

    #[test]
    fn a_store_of_the_release_before_is_understood_and_none_of_any_other() {
        for (version, is_understood) in
            [("1", true), ("2", true), ("0", false), ("3", false), ("", false), ("2, 1", false)]
        {
            let answer = response("200", Some(version), "{}");
            assert_eq!(understand(Ok(answer.clone()), 100).is_ok(), is_understood, "{version}");
            // What it cannot be told now is kept for a store that understands it.
            let is_lost = receipt(&response("400", Some(version), "{}")) == Receipt::Refused(400);
            assert_eq!(is_lost, is_understood, "{version}");
        }
    }

    #[test]
    fn the_fleets_limit_says_when_the_next_token_arrives() {
        let body = r#"{"error":"too_many_requests","error_description":"d","next_token_in_ms":150}"#;
        let answer = understand(Ok(response("429", Some("1"), body)), 100);
        assert_eq!(answer, Ok(Answer::RateLimited { next_token_in: 150_000_000 }));
        assert_eq!(understand(Ok(response("429", Some("1"), "{}")), 100), Err(Failure::StoreError));
    }

    #[test]
    fn a_refusal_of_the_store_is_passed_on_and_has_a_reason() {
        for (status, error, outcome, reason) in [
            (400, "invalid_client_metadata", Some("invalid"), Reason::InvalidClientMetadata),
            (400, "invalid_redirect_uri", Some("invalid"), Reason::InvalidRedirectUri),
            (400, "invalid_software_statement", None, Reason::InvalidSoftwareStatement),
            (403, "access_denied", Some("disabled"), Reason::RegistrationDisabled),
            (403, "access_denied", Some("quota"), Reason::QuotaUsedUp),
            (403, "access_denied", Some("tomorrows"), Reason::StoreRefused),
            (403, "access_denied", None, Reason::StoreRefused),
        ] {
            let body = format!(r#"{{"error":"{error}","error_description":"d"}}"#);
            let mut response = response(&status.to_string(), Some("1"), &body).unwrap();
            response.headers.extend(outcome.map(|outcome| (OUTCOME_HEADER.to_owned(), outcome.as_bytes().to_vec())));
            let (error, error_description) = (error.to_owned(), "d".to_owned());
            let refusal = StoreRefusal { reason, status, error, error_description };
            assert_eq!(understand(Ok(Some(response)), 100), Ok(Answer::Refused(refusal)));
        }
    }
}
