//! The form with which a rule of the access control list is written.

use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::form::Fields;
use super::page::hidden;
use super::session::Session;
use crate::store::db::StoredAcl;

/// The signals of a rule: the member's name, what it is called, and what a line of it looks like.
const SIGNALS: [(&str, &str, &str); 11] = [
    ("ipv4_cidrs", "client address (IPv4)", "203.0.113.0/24"),
    ("ipv6_cidrs", "client address (IPv6)", "2001:db8::/32"),
    ("geo_country_codes", "country", "CH"),
    ("geo_subdivision_codes", "subdivision", "CH-ZH"),
    ("asns", "autonomous system", "64496"),
    ("user_agents", "user agent", "curl/*"),
    ("hostnames", "host", "login.example.com"),
    ("ja3_fingerprints", "JA3 fingerprint", "773906b0efdefa24a7f2b8eb6985bf37"),
    ("ja4_fingerprints", "JA4 fingerprint", "t13d1516h2_8daaf6152771_02713d6af862"),
    ("connecting_ipv4_cidrs", "direct peer (IPv4)", "198.51.100.7"),
    ("connecting_ipv6_cidrs", "direct peer (IPv6)", "2001:db8::7"),
];

const SCOPES: [(&str, &str); 4] = [
    ("dynamic_client_registration", "Registrations"),
    ("tenant", "Any request"),
    ("authentication", "All but the Management API"),
    ("management", "The Management API"),
];

const ACTIONS: [(&str, &str); 4] =
    [("block", "Block it"), ("allow", "Allow it"), ("redirect", "Redirect it"), ("count", "Nothing: count it")];

/// What a signal is called.
pub fn label(name: &str) -> &str {
    SIGNALS.iter().find(|(other, ..)| *other == name).map_or(name, |(_, label, _)| label)
}

/// What the form has in it.
pub struct RuleForm {
    description: String,
    active: bool,
    scope: String,
    action: String,
    redirect_uri: String,
    log: bool,
    match_all: bool,
    matches: [String; SIGNALS.len()],
    not_matches: [String; SIGNALS.len()],
}

impl Default for RuleForm {
    /// A new rule monitors first: what it would do is seen before it does it.
    fn default() -> Self {
        Self {
            description: String::new(),
            active: true,
            scope: "dynamic_client_registration".to_owned(),
            action: "block".to_owned(),
            redirect_uri: String::new(),
            log: true,
            match_all: false,
            matches: Default::default(),
            not_matches: Default::default(),
        }
    }
}

impl RuleForm {
    /// A rule as it is.
    pub fn of(stored: &StoredAcl) -> Self {
        let rule: Value = serde_json::from_str(stored.rule.get()).unwrap_or_default();
        let text = |pointer: &str| rule.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_set = |pointer: &str| rule.pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
        let lines = |condition: &str| {
            SIGNALS.map(|(name, ..)| {
                let list = rule.pointer(&format!("/{condition}/{name}")).and_then(Value::as_array);
                let line = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                list.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
            })
        };
        let effects = ["block", "allow", "redirect"];
        let action = effects.into_iter().find(|effect| is_set(&format!("/action/{effect}"))).unwrap_or("count");
        Self {
            description: stored.description.clone(),
            active: stored.active,
            scope: text("/scope"),
            action: action.to_owned(),
            redirect_uri: text("/action/redirect_uri"),
            log: is_set("/action/log"),
            match_all: is_set("/match_all"),
            matches: lines("match"),
            not_matches: lines("not_match"),
        }
    }

    /// What was sent.
    pub fn sent(fields: &Fields) -> Self {
        let text = |name| fields.text(name).to_owned();
        let lines = |condition: &str| SIGNALS.map(|(name, ..)| fields.text(&format!("{condition}.{name}")).to_owned());
        Self {
            description: text("description"),
            active: fields.is_set("active"),
            scope: text("scope"),
            action: text("action"),
            redirect_uri: text("redirect_uri"),
            log: fields.is_set("log"),
            match_all: fields.text("whom") == "all",
            matches: lines("match"),
            not_matches: lines("not_match"),
        }
    }

    /// The body of the Management API's request. Without a priority a new rule comes last, and another keeps its own.
    pub fn body(&self) -> Value {
        let mut action = Map::new();
        match self.action.as_str() {
            "count" => _ = action.insert("log".to_owned(), true.into()),
            "redirect" => {
                action.insert("redirect".to_owned(), true.into());
                action.insert("redirect_uri".to_owned(), self.redirect_uri.as_str().into());
            }
            other => _ = action.insert(other.to_owned(), true.into()),
        }
        if self.log {
            action.insert("log".to_owned(), true.into());
        }
        let mut rule = Map::from_iter([
            ("action".to_owned(), Value::Object(action)),
            ("scope".to_owned(), self.scope.as_str().into()),
        ]);
        if self.match_all {
            rule.insert("match_all".to_owned(), true.into());
        } else {
            for (name, texts) in [("match", &self.matches), ("not_match", &self.not_matches)] {
                let signals = signals(texts);
                if !signals.is_empty() {
                    rule.insert(name.to_owned(), signals.into());
                }
            }
        }
        json!({"description": self.description, "active": self.active, "rule": rule})
    }

    /// The form, which goes to `address`.
    pub fn show(&self, session: &Session, address: &str, button: &str) -> Markup {
        html! {
            form method="post" action=(address) class="card" {
                (hidden(session))
                label for="description" { "Description" }
                input id="description" name="description" required maxlength="255" autocomplete="off"
                    value=(self.description);
                div class="row" {
                    div { label for="scope" { "Which requests" } (select("scope", &SCOPES, &self.scope)) }
                    div { label for="action" { "What becomes of a match" } (select("action", &ACTIONS, &self.action)) }
                    div data-when="action=redirect" {
                        label for="redirect_uri" { "Redirect to (https)" }
                        input id="redirect_uri" name="redirect_uri" type="url" autocomplete="off"
                            value=(self.redirect_uri);
                    }
                }
                p {
                    label class="choice" {
                        input type="checkbox" name="log" value="yes" checked[self.log];
                        " Monitoring only: count what it would do, and do nothing"
                    }
                    label class="choice" {
                        input type="checkbox" name="active" value="yes" checked[self.active];
                        " Active"
                    }
                }
                fieldset {
                    legend { "Whom it matches" }
                    label class="choice" {
                        input type="radio" name="whom" value="all" checked[self.match_all]; " Anybody"
                    }
                    label class="choice" {
                        input type="radio" name="whom" value="some" checked[!self.match_all];
                        " Requests with these signals"
                    }
                }
                div data-when="whom=some" {
                    p class="help" {
                        "One value a line. A request matches if each signal that has values here has one of them."
                    }
                    (area("match", "Matches", &self.matches))
                    p class="help" { "A request with one of these is left alone." }
                    (area("not_match", "Except", &self.not_matches))
                }
                p class="buttons" {
                    button class="primary" { (button) }
                    a class="button" href="/console/access-control" { "Cancel" }
                }
            }
        }
    }
}

fn select(name: &str, options: &[(&str, &str)], chosen: &str) -> Markup {
    html! {
        select id=(name) name=(name) {
            @for (value, label) in options { option value=(value) selected[*value == chosen] { (label) } }
        }
    }
}

fn area(condition: &str, legend: &str, texts: &[String; SIGNALS.len()]) -> Markup {
    html! {
        fieldset {
            legend { (legend) }
            div class="signals" {
                @for ((name, label, example), text) in SIGNALS.iter().zip(texts) {
                    @let id = format!("{condition}.{name}");
                    div {
                        label for=(id) { (label) }
                        textarea id=(id) name=(id) rows="2" spellcheck="false" autocomplete="off" placeholder=(example) {
                            // A browser takes the first line's end away.
                            "\n" (text)
                        }
                    }
                }
            }
        }
    }
}

/// The members of a condition, from lines. What is no number where there has to be one stays text, and the Management API
/// says what it expects.
fn signals(texts: &[String; SIGNALS.len()]) -> Map<String, Value> {
    let mut members = Map::new();
    for ((name, ..), text) in SIGNALS.iter().zip(texts) {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let value = |line: &str| match line.parse::<u64>() {
            Ok(number) if *name == "asns" => Value::from(number),
            _ => line.into(),
        };
        let list: Vec<Value> = lines.map(value).collect();
        if !list.is_empty() {
            members.insert((*name).to_owned(), list.into());
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::NetworkAcl;
    use serde_json::value::to_raw_value;

    #[test]
    fn a_rule_that_is_edited_and_not_changed_stays_as_it_is() {
        for rule in [
            json!({"action": {"block": true}, "match_all": true, "scope": "tenant"}),
            json!({"action": {"log": true}, "match": {"asns": [1, 2]}, "scope": "management"}),
            json!({"action": {"allow": true, "log": true}, "not_match": {"user_agents": ["a*", "b"]}, "scope": "authentication"}),
            json!({
                "action": {"redirect": true, "redirect_uri": "https://x.example/"},
                "match": {
                    "asns": [1], "ipv4_cidrs": ["10.0.0.0/8"], "ipv6_cidrs": ["2001:db8::/32"],
                    "connecting_ipv4_cidrs": ["10.0.0.0/8"], "connecting_ipv6_cidrs": ["2001:db8::/32"],
                    "hostnames": ["a.example"], "geo_country_codes": ["CH"], "geo_subdivision_codes": ["CH-ZH"],
                    "ja3_fingerprints": ["773906b0efdefa24a7f2b8eb6985bf37"],
                    "ja4_fingerprints": ["t13d1516h2_8daaf6152771_02713d6af862"], "user_agents": ["x"]
                },
                "not_match": {"geo_country_codes": ["DE", "AT"]},
                "scope": "dynamic_client_registration"
            }),
        ] {
            let acl = json!({"description": "d", "active": true, "rule": rule});
            let acl: NetworkAcl = serde_json::from_value(acl).unwrap();
            let stored = StoredAcl {
                id: "acl_0000000000000000000000".to_owned(),
                version: 1,
                description: "d".to_owned(),
                active: true,
                priority: 3,
                rule: to_raw_value(&acl.rule).unwrap(),
                created_at: 0,
                updated_at: 0,
            };
            let again: NetworkAcl = serde_json::from_value(RuleForm::of(&stored).body()).unwrap();
            assert_eq!(again, acl);
        }
    }

    #[test]
    fn every_signal_of_a_rule_has_a_field() {
        let schema = schemars::schema_for!(crate::acl::Signals).to_value();
        let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names.len(), SIGNALS.len());
        assert!(names.iter().all(|name| SIGNALS.iter().any(|(other, ..)| other == name)), "{names:?}");
    }
}
