//! What a `content-type` says.

use mediatype::MediaType;

/// Whether there is exactly one `content-type` and it is JSON; parameters do not matter.
pub fn is_json<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> bool {
    let (Some(only), None) = (values.next(), values.next()) else { return false };
    let is_json = |media: MediaType| media.ty == "application" && media.subty == "json" && media.suffix.is_none();
    std::str::from_utf8(only).ok().and_then(|text| MediaType::parse(text).ok()).is_some_and(is_json)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
