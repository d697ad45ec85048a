//! Which names say that a secret stands under them: elements of the engine's model, attributes, stored properties, and the
//! keys that people gave to headers, parameters and properties of their connectors.
//!
//! People write one name in many ways (`X-Auth-Token`, `auth_token`, `authToken`), so it is compared in lower case and
//! without separators. A name that holds `token` and says something about one stays readable: the Administrator cannot open a
//! channel whose `tokenLocation` is eight asterisks.

/// A longer name is no name of the engine's model, and no header.
const MAX_NAME_LEN: usize = 256;

/// Whatever holds one of these is a secret.
const PARTS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "credential",
    "apikey",
    "privatekey",
    "accesskey",
    "sharedkey",
    "encryptionkey",
    "keystorepass",
    "authorization",
];

/// These too, unless the name is about the thing and not the thing.
const BEARERS: [&str; 17] = [
    "token",
    "cookie",
    "assertion",
    "signature",
    "jwt",
    "bearer",
    "sessionid",
    "subscriptionkey",
    "functionskey",
    "accountkey",
    "signingkey",
    "authkey",
    "masterkey",
    "clientkey",
    "licensekey",
    "keypass",
    "storepass",
];

/// What such a name ends in when it is about the thing.
const ABOUT: [&str; 14] = [
    "location",
    "policy",
    "spec",
    "type",
    "url",
    "uri",
    "endpoint",
    "algorithm",
    "variable",
    "expiration",
    "expiry",
    "lifetime",
    "timeout",
    "delimiter",
];

/// Texts of the engine's model that are called tokens: the quotes of delimited text.
const QUOTES: [&str; 2] = ["quotetoken", "quoteescapetoken"];

/// Attributes that name what stands in their element, as in `<property name="…">`.
pub(super) const NAMING_ATTRIBUTES: [&str; 3] = ["name", "key", "id"];

/// Attributes that only say how their element is to be read; without them nothing can read it.
pub(super) const SYSTEM_ATTRIBUTES: [&str; 6] =
    ["class", "version", "reference", "resolves-to", "defined-in", "serialization"];

/// Too short to be looked for inside of names: the last word of one (`keyStorePW`, `smtp.pass`).
const LAST_WORDS: [&str; 4] = ["pass", "pw", "pin", "otp"];

/// Whether a name is one under which engines keep secrets.
pub(in crate::admin) fn is_secret_name(name: &str) -> bool {
    if name.len() > MAX_NAME_LEN {
        return false;
    }
    let plain = plain(name);
    let holds = |parts: &[&str]| parts.iter().any(|part| plain.contains(part));
    holds(&PARTS) || (holds(&BEARERS) && !is_about(&plain)) || LAST_WORDS.contains(&last_word(name).as_str())
}

/// Whether a name is that of a map of headers to send: people invent names for what signs them in there, so that all of its
/// values are secrets. `responseHeaders` are what a listener answers to everybody.
pub(super) fn holds_headers(name: &str) -> bool {
    let plain = plain(name);
    plain.ends_with("headers") && !plain.starts_with("response")
}

fn is_about(plain: &str) -> bool {
    QUOTES.contains(&plain) || plain.contains("tokeniz") || ABOUT.iter().any(|end| plain.ends_with(end))
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The last word of a name, in lower case: behind a separator, or from the last capital on that follows a small letter.
fn last_word(name: &str) -> String {
    let name = name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    let mut start = 0;
    let mut before = ' ';
    for (at, c) in name.char_indices() {
        if !c.is_ascii_alphanumeric() {
            start = at + c.len_utf8();
        } else if c.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit()) {
            start = at;
        }
        before = c;
    }
    name[start..].to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_signs_somebody_in_is_a_secret_however_it_is_written() {
        for name in [
            "password",
            "Authorization",
            "Proxy-Authorization",
            "X-API-Key",
            "api_secret",
            "X-Auth-Token",
            "x_auth_token",
            "xAuthToken",
            "X-Vault-Token",
            "PRIVATE-TOKEN",
            "Ocp-Apim-Subscription-Key",
            "x-functions-key",
            "Cookie",
            "Set-Cookie",
            "refresh_token",
            "id_token",
            "client_assertion",
            "X-Hub-Signature-256",
            "X-Session-ID",
            "sessionToken",
            "keyPW",
            "keyStorePW",
            "trustStorePW",
            "keystore.keypass",
            "smtp.pass",
            "pass",
            "PIN",
            "user-pin",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn names_of_the_engines_model_and_of_plain_headers_are_none() {
        for name in [
            // Typed fields: the Administrator could not open a channel with asterisks in them.
            "quoteToken",
            "quoteEscapeToken",
            "tokenLocation",
            "tokenizer",
            "tokenizerType",
            "cookiePolicy",
            "signatureAlgorithm",
            "keyStore",
            "trustStore",
            "keyFile",
            "keyAuth",
            "mapping",
            "typing",
            "bypass.list",
            "compass",
            "locationKey",
            "verificationURL",
            "headersVariable",
            "authenticationType",
            "name",
            "",
            // What is about a token.
            "token_type",
            "tokenUrl",
            "token_endpoint",
            "client_assertion_type",
            "Accept",
            "Content-Type",
            "SOAPAction",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        assert!(!is_secret_name(&"token".repeat(99)), "no name at all");
    }

    #[test]
    fn headers_are_known_by_their_name_and_what_is_about_them_is_not() {
        assert!(["headers", "customHeaders", "requestHeaders"].into_iter().all(holds_headers));
        let others = ["responseHeaders", "headersVariable", "isUseHeadersVariable", "header", "parameters"];
        assert!(!others.into_iter().any(holds_headers));
    }
}
