//! Why a request was answered as it was: one word for the access log and the metrics.

use serde::{Serialize, Serializer};

/// Declares [`Reason`] with its words, so that no variant can be missing among the metrics.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// Why a request was answered as it was, or what became of a look for settings.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

reasons! {
    /// 201: registered.
    Registered = "registered",
    /// 204: a CORS preflight.
    Preflight = "preflight",
    /// 404: the host belongs to no tenant.
    UnknownHost = "unknown_host",
    /// 404: the path equals a protected one only after normalisation.
    DisguisedPath = "disguised_path",
    /// 404: the authorization server's own registration endpoint.
    ServerRegistration = "server_registration",
    /// 421: the TLS hello and the request name hosts of different tenants.
    Misdirected = "misdirected",
    /// 403: an access rule blocks it.
    AclBlocked = "acl_blocked",
    /// 302: an access rule sends it elsewhere.
    AclRedirected = "acl_redirected",
    /// An access rule allowed a request.
    AclAllowed = "acl_allowed",
    /// An access rule in monitoring mode matched a request.
    AclMonitored = "acl_monitored",
    /// An access rule names a signal for which this proxy has no source.
    AclWithoutSource = "acl_without_source",
    /// 405.
    Method = "method",
    /// 429: over the tenant's limit.
    RateLimited = "rate_limited",
    /// 429: over the limit of the source.
    SourceLimited = "source_limited",
    /// 429: all edges together are over the tenant's limit.
    FleetLimited = "fleet_limited",
    /// 429: other workers took the tenant's tokens at each try.
    LimiterContended = "limiter_contended",
    /// 503: the tenant's bucket is missing or unreadable.
    LimiterUnavailable = "limiter_unavailable",
    /// 403: the tenant has registration switched off.
    RegistrationDisabled = "registration_disabled",
    /// 415: `content-encoding`.
    ContentEncoding = "content_encoding",
    /// 415: `content-type`.
    ContentType = "content_type",
    /// 413.
    BodyTooLarge = "body_too_large",
    /// 400: `invalid_client_metadata`.
    InvalidClientMetadata = "invalid_client_metadata",
    /// 400: `invalid_redirect_uri`.
    InvalidRedirectUri = "invalid_redirect_uri",
    /// 400: `invalid_software_statement`.
    InvalidSoftwareStatement = "invalid_software_statement",
    /// 503: no settings have been loaded yet.
    SettingsNotLoaded = "settings_not_loaded",
    /// 503: the plugin cannot see bodies, because of a setting that it lacks.
    BodiesHidden = "bodies_hidden",
    /// 503: the tenant's settings cannot be read.
    SettingsUnreadable = "settings_unreadable",
    /// 503: the system's random source failed.
    RandomnessUnavailable = "randomness_unavailable",
    /// 403: the tenant has as many clients as it may have.
    QuotaUsedUp = "quota_used_up",
    /// 502: the authorization server's metadata cannot be completed.
    ServerMetadata = "server_metadata",
    /// The store refused what the edge accepted and did not say why; its answer is passed on.
    StoreRefused = "store_refused",
    /// 503: Envoy has no cluster of the configured name.
    NoCluster = "store_no_cluster",
    /// 503: no host of the store's cluster is healthy.
    NoHealthyHost = "store_no_healthy_host",
    /// 503: no connection to the store.
    ConnectError = "store_connect_error",
    /// 503: the store did not answer in time.
    Timeout = "store_timeout",
    /// 503: the cluster's circuit breaker is open.
    Overflow = "store_overflow",
    /// 503: the connection broke before the answer.
    Reset = "store_reset",
    /// 503: the answer was too large.
    Oversized = "store_oversized",
    /// 503: the answer did not come from a store.
    NotOurs = "store_not_ours",
    /// 503: the store speaks another version.
    WrongVersion = "store_wrong_version",
    /// 503: the store does not accept the edge's token.
    Unauthorized = "store_unauthorized",
    /// 503: the store has another client of that id.
    Conflict = "store_conflict",
    /// 503: the store could not do it, or answered nonsense.
    StoreError = "store_error",
    /// 503: no connection to the authorization server that registers clients, or its route leads nowhere.
    ServerUnreachable = "server_unreachable",
    /// 503: the authorization server that registers clients did not answer in time.
    ServerTimeout = "server_timeout",
    /// 503: the authorization server that registers clients answered with an error.
    ServerError = "server_error",
    /// 503: the authorization server registered a client, and its answer is of no use.
    ServerUnusable = "server_unusable",
    /// 400: the authorization server that registers clients refused one.
    ServerRefused = "server_refused",
    /// A client of the authorization server was deleted again, because the store did not record it.
    ServerClientDeleted = "server_client_deleted",
    /// The authorization server has a client that the store did not record, and that could not be deleted.
    ServerClientLeft = "server_client_left",
    /// 503: too many clients that are not known were looked up.
    LookUpsLimited = "look_ups_limited",
    /// 403: the endpoint is closed to third-party clients.
    ClientAccessDenied = "client_access_denied",
    /// A client that the tenant does not have, or that did not prove who it is.
    InvalidClient = "invalid_client",
    /// A client sent what it may not send, or not in the way that it has to be sent.
    InvalidRequest = "invalid_request",
    /// None of the scopes that a client asked for is granted.
    InvalidScope = "invalid_scope",
    /// A client named a resource that is none, or that it may not have.
    InvalidTarget = "invalid_target",
    /// A client asked for an API or used a grant that it may not have.
    UnauthorizedClient = "unauthorized_client",
    /// A client used a grant that nobody knows.
    UnsupportedGrantType = "unsupported_grant_type",
    /// A client asked for another response than a code.
    UnsupportedResponseType = "unsupported_response_type",
    /// The server sent a user back to the client with an error, and the user got a page instead.
    ErrorRedirectReplaced = "error_redirect_replaced",
    /// Settings are up to date.
    SettingsPolled = "settings_polled",
}

impl Reason {
    /// The reason with this word, if it is one for which requests are refused.
    pub fn of_refusal(word: &str) -> Option<Self> {
        let is_refusal = |reason: &Self| {
            !matches!(
                reason,
                Self::Registered
                    | Self::Preflight
                    | Self::AclAllowed
                    | Self::AclMonitored
                    | Self::AclWithoutSource
                    | Self::SettingsPolled
            )
        };
        Self::ALL.iter().copied().filter(is_refusal).find(|reason| reason.as_str() == word)
    }

    /// Whether it is that of a 429.
    pub fn is_limit(self) -> bool {
        matches!(self, Self::RateLimited | Self::SourceLimited | Self::FleetLimited | Self::LimiterContended)
    }
}

/// Its word.
impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().enumerate().all(|(number, reason)| *reason as usize == number));
    }

    #[test]
    fn requests_are_refused_for_every_reason_but_successes_and_rules_that_let_pass() {
        let others: Vec<_> = Reason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .filter(|word| Reason::of_refusal(word).is_none_or(|reason| reason.as_str() != *word))
            .collect();
        let expected =
            ["registered", "preflight", "acl_allowed", "acl_monitored", "acl_without_source", "settings_polled"];
        assert_eq!(others, expected);
        assert_eq!(Reason::of_refusal("x"), None);
        assert_eq!(Reason::ALL.iter().filter(|reason| reason.is_limit()).count(), 4);
    }
}
