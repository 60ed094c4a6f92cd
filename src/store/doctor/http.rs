//! Asking over HTTP.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use ureq::http::HeaderMap;
use ureq::tls::{RootCerts, TlsConfig};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is read, in bytes: an Envoy's whole configuration.
const MOST: u64 = 64 * 1024 * 1024;

/// What was answered.
pub struct Answer {
    /// The status.
    pub status: u16,
    headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// How far the clock of whoever answered is from this one, in seconds; the `date` of an answer has no fractions.
    pub fn clock_offset(&self) -> Option<u64> {
        let date = httpdate::parse_http_date(self.header("date")?).ok()?;
        let now = SystemTime::now();
        let apart = now.duration_since(date).or_else(|_| date.duration_since(now)).ok()?;
        Some(apart.as_secs())
    }
}

/// `GET base/path`; an error in words.
pub fn get(base: &str, path: &str) -> Result<Answer, String> {
    // The machine's authorities, so that an operator's own may be among them.
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(TIMEOUT))
        .tls_config(tls)
        .user_agent(concat!("dcr-store-doctor/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let url = format!("{}{path}", base.trim_end_matches('/'));
    let mut response = agent.get(&url).call().map_err(|error| error.to_string())?;
    let text = response.body_mut().with_config().limit(MOST).lossy_utf8(true).read_to_string();
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        text: text.map_err(|error| error.to_string())?,
    })
}
