//! A bucket of an S3-compatible store: how it is opened, what is tried again, and what is wrong when it can't be listed.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use config::{Bucket, BucketKeys};
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::carry::Carrier;

/// How often a call is made again that was answered with a 5xx, 429 or not at all.
const RETRIES: usize = 3;

/// Behind which no call is made again. The last one may take its own silence on top of it.
const RETRY_WITHIN: Duration = Duration::from_secs(4);

/// Opens a bucket, and asks it for the first of its blobs: what is wrong with its settings shows here.
///
/// A bucket that is only away at the moment is no reason not to start: purges need no blobs.
pub(super) async fn open(settings: &Bucket) -> Result<Arc<dyn ObjectStore>> {
    let has_tls = settings.endpoint.as_ref().is_none_or(|endpoint| endpoint.starts_with("https:"));
    let carrier = Carrier::new(has_tls).context("failed to set up the client of origin.blobs")?;
    let store = build(settings, carrier.clone())?;
    let Err(error) = store.list(None).try_next().await else { return Ok(store) };
    if is_away(&error, carrier.last_status()) {
        tracing::warn!(%error, "the bucket of origin.blobs does not answer; going on without it until it does");
        return Ok(store);
    }
    let (name, at) = (&settings.name, settings.endpoint.as_deref().unwrap_or("AWS"));
    match carrier.last_status() {
        404 => bail!("origin.blobs: there is no bucket `{name}` at {at}"),
        401 | 403 => bail!("origin.blobs: the keys are not allowed to list the bucket `{name}` at {at}: {error}"),
        _ => bail!("origin.blobs: failed to list the bucket `{name}` at {at}: {error}"),
    }
}

/// Tells whether the bucket would do its work, were it there: its address was right, and nothing was refused.
fn is_away(error: &object_store::Error, status: u16) -> bool {
    match no_answer(error) {
        Some(kind) => kind != HttpErrorKind::Connect,
        None => status == 429 || status >= 500,
    }
}

fn no_answer(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(deeper) = cause {
        if let Some(error) = deeper.downcast_ref::<HttpError>() {
            return Some(error.kind());
        }
        cause = deeper.source();
    }
    None
}

fn build(settings: &Bucket, carrier: Carrier) -> Result<Arc<dyn ObjectStore>> {
    let keys = Keys::of(settings.keys.as_ref())?;
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(1), base: 2.0 };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.name)
        .with_region(&settings.region)
        .with_virtual_hosted_style_request(settings.virtual_hosted)
        .with_access_key_id(keys.access)
        .with_secret_access_key(keys.secret)
        // Not all that speak S3 know how to delete several at once.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_WITHIN })
        .with_http_connector(carrier);
    if let Some(endpoint) = endpoint(settings) {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(session) = keys.session {
        builder = builder.with_token(session);
    }
    let store = builder.build().context("failed to open the bucket of origin.blobs")?;
    if settings.prefix.is_empty() {
        return Ok(Arc::new(store));
    }
    Ok(Arc::new(PrefixStore::new(store, settings.prefix.as_str())))
}

/// Returns the endpoint with the bucket's name in its host, where it is to stand there.
fn endpoint(settings: &Bucket) -> Option<String> {
    let endpoint = settings.endpoint.as_ref()?;
    match endpoint.split_once("://").filter(|_| settings.virtual_hosted) {
        Some((scheme, host)) => Some(format!("{scheme}://{}.{host}", settings.name)),
        None => Some(endpoint.clone()),
    }
}

/// What a bucket is shown.
struct Keys {
    access: String,
    secret: String,
    session: Option<String>,
}

impl Keys {
    fn of(named: Option<&BucketKeys>) -> Result<Self> {
        if let Some(keys) = named {
            let access = keys.access.read().context("failed to get origin.blobs.access_key")?;
            let secret = keys.secret.read().context("failed to get origin.blobs.secret_key")?;
            return Ok(Self { access, secret, session: None });
        }
        let read = |name| std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        match (read("AWS_ACCESS_KEY_ID"), read("AWS_SECRET_ACCESS_KEY")) {
            (Some(access), Some(secret)) => Ok(Self { access, secret, session: read("AWS_SESSION_TOKEN") }),
            _ => bail!(
                "origin.blobs has no access_key and secret_key, and the environment has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(endpoint: Option<&str>, virtual_hosted: bool) -> Bucket {
        let (name, prefix, region) = ("pictures".to_owned(), String::new(), "us-east-1".to_owned());
        Bucket { name, prefix, endpoint: endpoint.map(str::to_owned), region, keys: None, virtual_hosted }
    }

    #[test]
    fn the_bucket_stands_in_the_host_where_it_is_to_stand_there() {
        assert_eq!(endpoint(&bucket(None, true)), None);
        assert_eq!(endpoint(&bucket(Some("http://minio:9000"), false)).as_deref(), Some("http://minio:9000"));
        assert_eq!(endpoint(&bucket(Some("https://s3.test"), true)).as_deref(), Some("https://pictures.s3.test"));
    }

    #[test]
    fn what_is_refused_is_wrong_and_what_fails_is_away() {
        let generic = |source: Box<dyn Error + Send + Sync>| object_store::Error::Generic { store: "S3", source };
        for (status, away) in [(400, false), (301, false), (429, true), (500, true), (503, true)] {
            assert_eq!(is_away(&generic("refused".into()), status), away, "{status}");
        }
        for (kind, away) in [(HttpErrorKind::Connect, false), (HttpErrorKind::Timeout, true), (HttpErrorKind::Interrupted, true)] {
            let error = HttpError::new(kind, std::io::Error::other("no answer"));
            assert_eq!(is_away(&generic(Box::new(error)), 0), away, "{kind:?}");
        }
    }
}
