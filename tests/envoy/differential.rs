//! The edge and the server never read two different requests: whatever is sent, what reaches the server as a client's is
//! that client's in every reading, and what reaches it untouched is in no reading a third party's.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::ECHO;
use super::controls::{Protected, query};
use crate::support::http1::{self, Connection};

/// How many queries are sent.
const QUERIES: u32 = 5_000;

/// Numbers that are the same in each run (a linear congruential generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn is_one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// The text with some of its characters written otherwise.
fn disguised(numbers: &mut Numbers, text: &str) -> String {
    let encoding = numbers.below(6);
    let mut disguised = String::new();
    for character in text.chars() {
        let byte = character as u32;
        match encoding {
            0 if numbers.is_one_in(4) => disguised.push_str(&format!("%{byte:02x}")),
            1 if numbers.is_one_in(4) => disguised.push_str(&format!("%{byte:02X}")),
            2 if numbers.is_one_in(8) => disguised.push_str(&format!("%25{byte:02x}")),
            3 if numbers.is_one_in(8) => disguised.extend(character.to_uppercase()),
            _ => disguised.push(character),
        }
    }
    if numbers.is_one_in(12) {
        disguised.push_str(
            numbers.one(&["%00", "%20", "+", "%0a", "[]", "%5B%5D", "[0]", ".", "%c2%a0", "%ff", "%", "%u0031"]),
        );
    }
    if numbers.is_one_in(16) {
        disguised.insert_str(0, numbers.one(&["%20", "+", "%09", "%00", "&amp;", "%ef%bb%bf"]));
    }
    disguised
}

fn generated(numbers: &mut Numbers, id: &str) -> String {
    let good = query(id);
    let mut pairs: Vec<String> = good.split('&').map(str::to_owned).collect();
    if numbers.is_one_in(4) {
        // Not a third party's at first sight.
        pairs[0] = "client_id=first".to_owned();
    }
    for _ in 0..numbers.below(4) {
        let name = numbers.one(&[
            "client_id",
            "redirect_uri",
            "scope",
            "state",
            "ext-a",
            "audience",
            "response_type",
            "x",
            "",
        ]);
        let value = match name {
            "client_id" => id,
            "redirect_uri" => "https%3A%2F%2Fevil.example%2Fcb",
            _ => numbers.one(&["read", "code", "first", "a;client_id=first", "%26client_id%3Dfirst", ""]),
        };
        let (name, value) = (disguised(numbers, name), disguised(numbers, value));
        let equals = numbers.one(&["=", "=", "=", "=", "%3D", "==", ""]);
        let at = numbers.below(pairs.len() + 1);
        pairs.insert(at, format!("{name}{equals}{value}"));
    }
    if numbers.is_one_in(3) {
        let at = numbers.below(pairs.len());
        pairs[at] = disguised(numbers, &pairs[at].clone());
    }
    let mut query = String::new();
    for (number, pair) in pairs.iter().enumerate() {
        if number > 0 {
            query.push_str(if numbers.is_one_in(20) { numbers.one(&[";", "&&", "%26", "&;", "?"]) } else { "&" });
        }
        query.push_str(pair);
    }
    query
}

/// What a generous server could read: pairs apart at `&` and `;`, names decoded as often as it goes, without case, blanks
/// and brackets.
fn generous(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let mut text = text.to_owned();
        for _ in 0..3 {
            let pairs: Vec<_> =
                form_urlencoded::parse(format!("{}=", text.replace('=', "%3D").replace('&', "%26")).as_bytes())
                    .map(|(name, _)| name.into_owned())
                    .collect();
            text = pairs.into_iter().next().unwrap_or_default();
        }
        text
    };
    let tidy = |name: String| -> String {
        let name = name.split(['[', '\0']).next().unwrap_or_default().to_lowercase();
        name.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect()
    };
    let pairs = query.split(['&', ';']).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (tidy(decode(name)), decode(value))).collect()
}

fn is_his(value: &str, id: &str) -> bool {
    let visible: String = value.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    visible.eq_ignore_ascii_case(id)
}

#[test]
fn of_five_thousand_generated_queries_the_edge_and_the_server_read_none_differently() {
    let protected = Protected::start(json!({}));
    let id = protected.public_client().id;
    let mut connection = Connection::open(protected.gateway.http_address());
    let mut numbers = Numbers(20_261_126);
    let (mut marked, mut untouched) = (0, 0);
    for number in 0..QUERIES {
        let query = generated(&mut numbers, &id);
        let as_form = number % 4 == 0;
        let request = if as_form {
            let form: [(&str, &[u8]); 1] = [("content-type", b"application/x-www-form-urlencoded")];
            http1::request("POST", "/authorize", &form, query.as_bytes())
        } else if query.bytes().any(|byte| byte <= b' ' || byte > b'~') {
            continue;
        } else {
            http1::request("GET", &format!("/authorize?{query}"), &[], b"")
        };
        connection.send(&request);
        let response = connection.receive();
        if response.header(ECHO).is_none() {
            assert!(matches!(response.status, 400..500), "{query}: {response:?}");
            if response.header("connection") == Some("close") {
                connection = Connection::open(protected.gateway.http_address());
            }
            continue;
        }
        let seen = response.json();
        let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).unwrap();
        let strict: Vec<(String, String)> =
            serde_json::from_value(seen[if as_form { "form" } else { "query" }].clone()).unwrap();
        let client = headers.iter().find(|(name, _)| name == "x-dcr-client").map(|(_, value)| value);
        let sent =
            if as_form { None } else { seen["path"].as_str().and_then(|path| path.split_once('?')).map(|(_, q)| q) };
        match client {
            Some(client) => {
                marked += 1;
                assert_eq!(*client, id, "{query}");
                let names: HashSet<_> = strict.iter().map(|(name, _)| name.to_lowercase()).collect();
                assert_eq!(names.len(), strict.len(), "{query}: {seen}");
                let value = |name: &str| strict.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
                assert_eq!(value("client_id"), Some(&*id), "{query}");
                assert_eq!(value("redirect_uri"), Some("https://app.example/cb"), "{query}");
                assert_eq!(value("response_type"), Some("code"), "{query}");
                // Without a scope it has the grant's.
                assert!(matches!(value("scope"), Some("read" | "read write")), "{query}");
                assert_eq!(value("code_challenge_method"), Some("S256"), "{query}");
                if let Some(sent) = sent {
                    let clients = generous(sent).into_iter().filter(|(name, _)| name == "client_id").count();
                    assert_eq!((clients, generous(sent).len()), (1, strict.len()), "{query}: {sent}");
                }
            }
            None => {
                untouched += 1;
                let sent = sent.unwrap_or(&query);
                let all = generous(sent).into_iter().chain(strict);
                let his: Vec<_> = all.filter(|(name, value)| name == "client_id" && is_his(value, &id)).collect();
                assert_eq!(his, [], "{query}: {}", Value::from(sent));
            }
        }
    }
    // Each way is taken often enough to mean something.
    assert!(marked > 300 && untouched > 100, "{marked} {untouched}");
}
