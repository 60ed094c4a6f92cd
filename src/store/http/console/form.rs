//! What a form sent, and that a page of this console sent it.

use axum::extract::{Form as AxumForm, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::failure::Failure;
use super::session::{CSRF, Session, host};
use crate::store::http::App;

/// The names and values of a form, in its order.
#[derive(Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Whether nothing was sent.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of a name, without spaces around it; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value.trim())
    }

    /// Every value of a name, without spaces around it.
    pub fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.trim())
    }

    /// Whether a box is ticked.
    pub fn is_set(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    /// The lines of a text that are not empty, without spaces around them.
    pub fn lines<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.text(name).lines().map(str::trim).filter(|line| !line.is_empty())
    }

    /// A whole number; `null` where there is nothing. What is no number is passed on as the text that it is, so that the
    /// Management API says what it expects.
    pub fn number(&self, name: &str) -> Value {
        match self.text(name) {
            "" => Value::Null,
            text => text.parse::<u64>().map_or_else(|_| text.into(), Value::from),
        }
    }
}

/// A form that somebody who is signed in sent from a page of this console.
pub struct Posted {
    /// Who.
    pub session: Session,
    /// What.
    pub fields: Fields,
}

impl FromRequest<App> for Posted {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        refuse_others(&parts)?;
        // Before anything is read of a body: nobody else's is.
        let session = Session::from_request_parts(&mut parts, app).await?;
        let fields = read(Request::from_parts(parts, body)).await?;
        let is_ours: bool = fields.text(CSRF).as_bytes().ct_eq(session.csrf().as_bytes()).into();
        if is_ours {
            Ok(Self { session, fields })
        } else {
            let message = "The form is from an earlier session. Go back, load the page anew, and send it again.";
            Err(Failure::new(StatusCode::FORBIDDEN, message))
        }
    }
}

/// A form of somebody who is not signed in.
pub struct Anonymous(pub Fields);

impl FromRequest<App> for Anonymous {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &App) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        refuse_others(&parts)?;
        Ok(Self(read(Request::from_parts(parts, body)).await?))
    }
}

async fn read(request: Request) -> Result<Fields, Failure> {
    let form = AxumForm::<Vec<(String, String)>>::from_request(request, &()).await;
    let AxumForm(fields) = form.map_err(|rejection| Failure::new(rejection.status(), rejection.body_text()))?;
    Ok(Fields(fields))
}

/// Refuses what a page of another origin sent. Browsers say so themselves; what says nothing is no browser, and nobody
/// sends it in somebody else's name.
fn refuse_others(parts: &Parts) -> Result<(), Failure> {
    let text = |name| parts.headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or_default());
    let is_ours = match (text(header::HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => {
            origin.split_once("://").is_some_and(|(_, authority)| host(parts).is_some_and(|host| host == authority))
        }
        (None, None) => true,
    };
    if is_ours {
        return Ok(());
    }
    let message = "A page of another origin sent this form. Use the console's own pages; a proxy in front of it has to \
                   leave the host header as it is.";
    Err(Failure::new(StatusCode::FORBIDDEN, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ours(headers: &[(&str, &str)]) -> bool {
        let request = headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        refuse_others(&parts).is_ok()
    }

    #[test]
    fn only_pages_of_the_same_origin_send_forms() {
        let host = ("host", "127.0.0.1:8081");
        assert!(is_ours(&[host]));
        assert!(is_ours(&[host, ("origin", "http://127.0.0.1:8081")]));
        assert!(is_ours(&[host, ("sec-fetch-site", "same-origin"), ("origin", "null")]));
        for other in [
            &[("origin", "http://127.0.0.1:9999")][..],
            &[("origin", "null")],
            &[("origin", "http://127.0.0.1:8081.evil.example")],
            &[("origin", "http://evil.example")],
            &[("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:8081")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
        ] {
            let headers: Vec<_> = [host].iter().chain(other).copied().collect();
            assert!(!is_ours(&headers), "{other:?}");
        }
    }
}
