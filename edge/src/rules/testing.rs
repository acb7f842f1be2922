//! What the tests of this folder share: header fields and moments from short literals.

use http::{HeaderMap, HeaderName, HeaderValue};
use wire::Timestamp;

/// Sun, 06 Nov 1994 08:49:37 GMT, the moment of the RFCs' examples.
pub(crate) const THEN: Timestamp = Timestamp::from_millis(784_111_777_000);

/// Returns these lines as header fields, repeated names as several lines.
pub(crate) fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

/// Returns the moment `seconds` after [`THEN`].
pub(crate) fn after(seconds: u64) -> Timestamp {
    Timestamp::from_millis(THEN.as_millis() + seconds * 1000)
}
