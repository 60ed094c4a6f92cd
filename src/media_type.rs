//! What a `content-type` and an `accept` say.

use mediatype::{MediaType, MediaTypeList, Name, ReadParams};

/// Whether there is exactly one `content-type` and it is JSON; parameters do not matter.
pub fn is_json<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> bool {
    let (Some(only), None) = (values.next(), values.next()) else { return false };
    let is_json = |media: MediaType| media.ty == "application" && media.subty == "json" && media.suffix.is_none();
    std::str::from_utf8(only).ok().and_then(|text| MediaType::parse(text).ok()).is_some_and(is_json)
}

/// Whether there is exactly one `content-type` and it is that of a form in UTF-8.
pub fn is_form<'a>(values: impl Iterator<Item = &'a [u8]>) -> bool {
    is_in_utf8(values, "x-www-form-urlencoded")
}

/// Whether there is exactly one `content-type` and it is JSON in UTF-8. JSON has no charset (RFC 8259 §11), and there are
/// servers that go by one all the same.
pub fn is_json_in_utf8<'a>(values: impl Iterator<Item = &'a [u8]>) -> bool {
    is_in_utf8(values, "json")
}

fn is_in_utf8<'a>(mut values: impl Iterator<Item = &'a [u8]>, subtype: &str) -> bool {
    let (Some(only), None) = (values.next(), values.next()) else { return false };
    let is_it = |media: MediaType| {
        // One that knows no parameters reads UTF-8 too (URL Standard §5.1).
        let is_utf8 = |(name, value): (Name, mediatype::Value)| {
            name == "charset" && value.unquoted_str().eq_ignore_ascii_case("utf-8")
        };
        media.ty == "application"
            && media.subty == subtype
            && media.suffix.is_none()
            && media.params().count() <= 1
            && media.params().all(is_utf8)
    };
    std::str::from_utf8(only).ok().and_then(|text| MediaType::parse(text).ok()).is_some_and(is_it)
}

/// Whether HTML is preferred to JSON (RFC 9110 §12.5.1). Whoever has no preference gets JSON.
pub fn prefers_html<'a>(accept: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut html = Preference::default();
    let mut json = Preference::default();
    for media in accept.filter_map(|value| std::str::from_utf8(value).ok()).flat_map(MediaTypeList::new).flatten() {
        let weight = media.get_param(Name::new_unchecked("q")).map_or(1_000, |q| thousandths(q.as_str()));
        html.hear("text", "html", &media, weight);
        json.hear("application", "json", &media, weight);
    }
    html.weight > json.weight
}

/// What an `accept` says of one type: the most specific range counts.
#[derive(Default)]
struct Preference {
    specificity: u8,
    weight: u16,
}

impl Preference {
    fn hear(&mut self, ty: &str, subty: &str, media: &MediaType, weight: u16) {
        let specificity = match (media.ty.as_str(), media.subty.as_str()) {
            (t, s) if t.eq_ignore_ascii_case(ty) && s.eq_ignore_ascii_case(subty) => 3,
            (t, "*") if t.eq_ignore_ascii_case(ty) => 2,
            ("*", "*") => 1,
            _ => return,
        };
        if specificity >= self.specificity {
            *self = Self { specificity, weight };
        }
    }
}

/// A weight (RFC 9110 §12.4.2) in thousandths; what is none counts as 0.
fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_weight = matches!(whole, "0" | "1") && fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let digits = is_weight.then(|| format!("{whole}{fraction:0<3}"));
    digits.and_then(|digits| digits.parse().ok()).map_or(0, |weight: u16| weight.min(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_content_type_of_a_form_in_utf_8_is_a_form() {
        let form = "application/x-www-form-urlencoded";
        for good in [form, "Application/X-WWW-Form-URLencoded", &format!("{form}; charset=UTF-8")] {
            assert!(is_form([good.as_bytes()].into_iter()), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "multipart/form-data; boundary=x",
            &format!("{form}; charset=utf-16"),
            &format!("{form};a=b"),
        ] {
            assert!(!is_form([bad.as_bytes()].into_iter()), "{bad}");
        }
        assert!(!is_form([form.as_bytes(), form.as_bytes()].into_iter()) && !is_form(std::iter::empty()));
    }

    #[test]
    fn exactly_one_content_type_of_json_is_json() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"utf-8\"",
        ] {
            assert!(is_json([good.as_bytes()].into_iter()), "{good}");
        }
        for bad in [
            &b""[..],
            b"text/json",
            b"application/jsonx",
            b"application/json,application/json",
            b"application/vnd.a+json",
            b"json",
            b"application/*",
            b"application/\xa1json",
        ] {
            assert!(!is_json([bad].into_iter()), "{}", bad.escape_ascii());
        }
        assert!(!is_json([].into_iter()));
        assert!(!is_json([b"application/json"; 2].into_iter().map(|value| &value[..])));
    }

    #[test]
    fn html_is_for_those_who_prefer_it() {
        for html in [
            "text/html",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/json;q=0.5, text/*",
            "application/json; q=0, text/html; q=0.001",
            "TEXT/HTML",
        ] {
            assert!(prefers_html([html.as_bytes()].into_iter()), "{html}");
        }
        for json in [
            "*/*",
            "",
            "application/json",
            "text/html, application/json",
            "text/html;q=0.8,application/json;q=0.81",
            "text/html;q=0",
            "text/html;q=x",
            "text/plain",
            "text/html;q=0.5,*/*",
            "\u{1}",
        ] {
            assert!(!prefers_html([json.as_bytes()].into_iter()), "{json}");
        }
        assert!(!prefers_html([].into_iter()));
        assert!(prefers_html([&b"application/json;q=0.1"[..], b"text/html"].into_iter()));
    }
}
