//! The parameters of a request, read strictly: what two readers could read differently is refused and not interpreted.

use std::fmt;

/// Longest value, in bytes after decoding.
const MAX_VALUE: usize = 2_048;

/// Longest name, in bytes.
const MAX_NAME: usize = 128;

/// Longest query or form, in bytes as sent.
const MAX_BYTES: usize = 8 * 1024;

/// The parameters of a query or of a form, decoded, in the order sent. No two have the same name in any case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parameters(Vec<(String, String)>);

/// Why parameters are not read. Its text is for the developer of the client, in ASCII; it names a parameter only by a
/// name that is harmless.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// More than [`MAX_BYTES`] in all.
    TooLong,
    /// A byte that has to be written as `%XX` (RFC 3986 §3.4), or `;`, which separates parameters for some servers.
    Character,
    /// A `%` without two hexadecimal digits.
    Encoding,
    /// A name that is empty, too long, or has another character than letters, digits, `-` and `_`.
    Name,
    /// A parameter without `=`, which some servers do not see.
    NoValue(String),
    /// A value that is no UTF-8, or has a control character in it.
    Text(String),
    /// A value of more than [`MAX_VALUE`] bytes.
    ValueTooLong(String),
    /// A parameter that is there twice, perhaps in another case.
    Repeated(String),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the parameters are longer than {MAX_BYTES} bytes in all"),
            Self::Character => f.write_str("a character of the parameters has to be percent-encoded"),
            Self::Encoding => f.write_str("a percent sign must be followed by two hexadecimal digits"),
            Self::Name => f.write_str("a parameter has a name that is none: send letters, digits, - and _ as they are"),
            Self::NoValue(name) => write!(f, "{name} has no value: write it with ="),
            Self::Text(name) => write!(f, "{name} must be text in UTF-8 without control characters"),
            Self::ValueTooLong(name) => write!(f, "{name} is longer than {MAX_VALUE} bytes"),
            Self::Repeated(name) => write!(f, "{name} is sent twice: send it once"),
        }
    }
}

impl Parameters {
    /// Reads what stands behind the `?` of a URI, or a body of `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// Somebody could read it otherwise.
    pub fn parse(encoded: &[u8]) -> Result<Self, Malformed> {
        if encoded.len() > MAX_BYTES {
            return Err(Malformed::TooLong);
        }
        if !encoded.iter().all(|byte| AS_IT_IS.get(usize::from(*byte)) == Some(&true)) {
            return Err(Malformed::Character);
        }
        let mut parameters = Self::default();
        // Libraries leave a `&` at the end or two in a row. Nobody reads a parameter there, and none goes on.
        for pair in encoded.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            // An encoded name is a disguise: no name has a character that needs it.
            let name = halves.next().and_then(|name| std::str::from_utf8(name).ok()).filter(|name| is_name(name));
            let name = name.ok_or(Malformed::Name)?.to_owned();
            let Some(value) = halves.next() else { return Err(Malformed::NoValue(name)) };
            let value = String::from_utf8(decode(value)?).ok().filter(|value| !has_control(value));
            let Some(value) = value else { return Err(Malformed::Text(name)) };
            if value.len() > MAX_VALUE {
                return Err(Malformed::ValueTooLong(name));
            }
            if parameters.names().any(|other| other.eq_ignore_ascii_case(&name)) {
                return Err(Malformed::Repeated(name));
            }
            parameters.0.push((name, value));
        }
        Ok(parameters)
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The names, in the order sent.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Takes away what is sent without a value, which counts as not sent (RFC 6749 §3.1 and §3.2): a server that sees it
    /// otherwise does not see it at all.
    pub fn drop_valueless(&mut self) {
        self.0.retain(|(_, value)| !value.is_empty());
    }

    /// Sets a parameter, in its place or at the end.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Takes a parameter away.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(other, _)| other != name);
    }

    /// The parameters as a query or a form that every server reads alike: a blank is `%20` and not `+`.
    pub fn encode(&self) -> String {
        let mut encoded = String::new();
        for (name, value) in &self.0 {
            if !encoded.is_empty() {
                encoded.push('&');
            }
            encoded.push_str(name);
            encoded.push('=');
            percent_encode(value, &mut encoded);
        }
        encoded
    }
}

/// Appends text in which everything but unreserved characters (RFC 3986 §2.3) is percent-encoded.
pub(super) fn percent_encode(text: &str, encoded: &mut String) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let plain = rest.iter().position(|byte| !is_unreserved(*byte)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(plain);
        encoded.push_str(std::str::from_utf8(run).unwrap_or_default());
        let Some((byte, after)) = after.split_first() else { return };
        encoded.push('%');
        let digits = [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
        encoded.extend(digits.into_iter().flatten().map(|digit| digit.to_ascii_uppercase()));
        rest = after;
    }
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand in a query as it is (RFC 3986 §3.4), by its code, without `;`. The characters of a URI in a value are
/// often sent as they are.
const AS_IT_IS: [bool; 128] = {
    let mut table = [false; 128];
    let mut rest: &mut [bool] = &mut table;
    let mut byte: u8 = 0;
    while let Some((place, after)) = rest.split_first_mut() {
        *place =
            is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'&'..=b',' | b'=' | b':' | b'@' | b'/' | b'?' | b'%');
        rest = after;
        byte = byte.wrapping_add(1);
    }
    table
};

/// Whether a text has a control character in it (Unicode's Cc: C0, DEL and C1). The bytes of most have none beyond ASCII.
fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_control()) || (!text.is_ascii() && text.contains(char::is_control))
}

fn is_name(name: &str) -> bool {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_fit)
}

/// A value with each `%XX` as its byte and each `+` as a blank.
fn decode(value: &[u8]) -> Result<Vec<u8>, Malformed> {
    let hex = |digit: Option<&u8>| char::from(*digit?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (hex(bytes.next()), hex(bytes.next()));
                high.zip(low).map(|(high, low)| high << 4 | low).ok_or(Malformed::Encoding)?
            }
            other => *other,
        });
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(encoded: &str) -> Result<Vec<(String, String)>, Malformed> {
        Parameters::parse(encoded.as_bytes()).map(|parameters| parameters.0)
    }

    fn error(encoded: &str) -> Malformed {
        pairs(encoded).unwrap_err()
    }

    #[test]
    fn parameters_are_decoded_once_in_the_order_sent() {
        let read = pairs("b=1&a=x+y%20z&c=%2525&d=&e==%3D=&f=https://a.example/?x").unwrap();
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected =
            [("b", "1"), ("a", "x y z"), ("c", "%25"), ("d", ""), ("e", "==="), ("f", "https://a.example/?x")];
        assert_eq!(read, expected);
        assert_eq!(pairs("&a=1&&b=2&").unwrap().len(), 2);
        assert_eq!(pairs("").unwrap(), []);
    }

    #[test]
    fn a_repeated_parameter_is_refused_also_in_another_case() {
        assert_eq!(error("a=1&b=2&a=1"), Malformed::Repeated("a".to_owned()));
        assert_eq!(error("client_id=1&Client_ID=2"), Malformed::Repeated("Client_ID".to_owned()));
    }

    #[test]
    fn what_is_not_percent_encoded_as_it_should_be_is_refused() {
        for bad in ["a=%", "a=%4", "a=%zz", "a=%4g", "a=%u0041", "a=%-1"] {
            assert_eq!(error(bad), Malformed::Encoding, "{bad}");
        }
        for bad in ["a=1;b=2", "a=b c", "a=\u{e4}", "a=\"", "a=<", "a=\\", "a=#", "a=\0", "a=[", "a[]=1", "a=^", "a=`|"]
        {
            assert_eq!(error(bad), Malformed::Character, "{bad}");
        }
    }

    #[test]
    fn control_characters_and_what_is_no_text_are_refused() {
        for bad in ["%00", "%0a", "%0D", "%7f", "%c2%85", "%ff", "%c3", "%c0%80", "%ed%a0%80"] {
            assert_eq!(error(&format!("a=x{bad}")), Malformed::Text("a".to_owned()), "{bad}");
        }
        assert_eq!(pairs("a=%C3%A4").unwrap(), [("a".to_owned(), "\u{e4}".to_owned())]);
    }

    #[test]
    fn a_name_is_written_as_it_is() {
        for bad in ["=1", "%61=1", "a%5B%5D=1", "a.b=1", "a+b=1", "a:b=1", "%00=1", "client%5fid=x"] {
            assert_eq!(error(bad), Malformed::Name, "{bad}");
        }
        assert_eq!(error(&format!("{}=1", "a".repeat(129))), Malformed::Name);
        assert_eq!(error("a=1&b"), Malformed::NoValue("b".to_owned()));
    }

    #[test]
    fn a_value_has_2048_bytes_at_most_and_all_together_8_kib() {
        assert!(pairs(&format!("a={}", "%20".repeat(2_048))).is_ok());
        assert_eq!(error(&format!("a={}", "+".repeat(2_049))), Malformed::ValueTooLong("a".to_owned()));
        let four = |last: usize| {
            let values = [2_048, 2_048, 2_048, last];
            let pairs = values.iter().zip('a'..).map(|(length, name)| format!("{name}={}", "x".repeat(*length)));
            pairs.collect::<Vec<_>>().join("&")
        };
        assert!(pairs(&four(8 * 1024 - 3 * 2_048 - 11)).is_ok());
        assert_eq!(error(&four(8 * 1024 - 3 * 2_048 - 10)), Malformed::TooLong);
    }

    #[test]
    fn a_change_keeps_the_place_and_what_is_new_comes_last() {
        let mut parameters = Parameters::parse(b"a=1&b=2&c=3").unwrap();
        parameters.set("b", "x y");
        parameters.set("d", "&=%");
        parameters.remove("a");
        assert_eq!(parameters.encode(), "b=x%20y&c=3&d=%26%3D%25");
        assert_eq!((parameters.get("a"), parameters.get("d")), (None, Some("&=%")));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_the_same_by_us_and_by_everybody(
            values in prop::collection::vec("[^\\p{Cc}]{0,40}", 0..6),
        ) {
            let mut parameters = Parameters::default();
            for (number, value) in values.iter().enumerate() {
                parameters.set(&format!("p-{number}"), value);
            }
            let encoded = parameters.encode();
            prop_assert_eq!(&Parameters::parse(encoded.as_bytes()).unwrap(), &parameters);
            let others: Vec<_> = form_urlencoded::parse(encoded.as_bytes()).into_owned().collect();
            prop_assert_eq!(others, parameters.0);
        }

        #[test]
        fn whatever_is_read_is_what_everybody_reads(encoded in "([a-zA-Z_%&=+;.\\[\\]?/ 0-9]|%[0-9a-f]{2}){0,40}") {
            if let Ok(parameters) = Parameters::parse(encoded.as_bytes()) {
                let others: Vec<_> = form_urlencoded::parse(encoded.as_bytes()).into_owned().collect();
                prop_assert_eq!(others, parameters.0);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(encoded in any::<Vec<u8>>()) {
            let _ = Parameters::parse(&encoded);
        }
    }
}
