//! A real S3-compatible store, moto, with one bucket. It keeps all in memory, so what it held ends with it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, Method};
use tempfile::TempDir;

use crate::{Answer, Process, eventually, python_with};

/// The versions that it is made of.
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/requirements.txt");

/// Any call must be signed; moto does not look by whom.
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A store, killed when it is dropped.
#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    client: Client,
    folder: TempDir,
    _process: Process,
}

impl S3 {
    /// The name of its bucket.
    pub const BUCKET: &'static str = "atoll-blobs";

    /// The id of the key that it is shown: whoever must not tell it is looked through for this.
    pub const ACCESS_KEY: &'static str = "AKIAIOSFODNN7EXAMPLE";

    /// The key itself.
    pub const SECRET_KEY: &'static str = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY";

    /// Starts a store on a port of the system's choice, and makes its bucket.
    ///
    /// # Errors
    /// Where it can't be installed or does not come up; with what it said.
    pub async fn start() -> Result<Self> {
        let python = tokio::task::spawn_blocking(|| python_with(Path::new(REQUIREMENTS))).await??;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("access.key"), Self::ACCESS_KEY)?;
        std::fs::write(folder.path().join("secret.key"), Self::SECRET_KEY)?;
        let program = python.to_str().context("the path to Python is not UTF-8")?;
        let process = Process::spawn(program, &["-I", "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], folder.path())?;
        let address = eventually("moto to listen", || async { address(&process.said()) }).await?;
        let store = Self { address, client: crate::answer::client()?, folder, _process: process };
        store.call(Method::PUT, "", "").await?.with_status(200)?;
        Ok(store)
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the line of an origin's section that stores blobs here, reached at `endpoint`.
    #[must_use]
    pub fn line(&self, endpoint: &str) -> String {
        let (bucket, keys) = (Self::BUCKET, self.folder.path().display());
        format!(
            "blobs = {{ url = \"s3://{bucket}/blobs\", endpoint = \"{endpoint}\", access_key = \"file:{keys}/access.key\", \
             secret_key = \"file:{keys}/secret.key\" }}\n"
        )
    }

    /// Returns the keys of all that the bucket holds.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn keys(&self) -> Result<Vec<String>> {
        let listed = self.call(Method::GET, "?list-type=2", "").await?.with_status(200)?.text();
        ensure!(!listed.contains("<IsTruncated>true"), "more than one page");
        let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        Ok(keys.map(|(key, _)| key.to_owned()).collect())
    }

    /// Puts other bytes in the place of an object.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn overwrite(&self, key: &str, bytes: &'static str) -> Result<()> {
        self.call(Method::PUT, &format!("/{key}"), bytes).await?.with_status(200).map(|_| ())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.call(Method::DELETE, &format!("/{key}"), "").await?.with_status(204).map(|_| ())
    }

    async fn call(&self, method: Method, rest: &str, body: &'static str) -> Result<Answer> {
        let request = self.client.request(method, format!("{}/{}{rest}", self.endpoint(), Self::BUCKET));
        // Of a body of another type moto takes the fields of a form.
        let request = request.header("authorization", SIGNED).header("content-type", "application/octet-stream").body(body);
        Answer::of(request.send().await?).await
    }
}

fn address(said: &str) -> Result<SocketAddr> {
    let rest = said.split_once("Running on http://").with_context(|| format!("it said:\n{said}"))?.1;
    Ok(rest.split_whitespace().next().unwrap_or_default().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_put_into_the_bucket_is_listed_until_it_is_deleted() -> Result<()> {
        let store = S3::start().await?;

        store.overwrite("a/b", "bytes").await?;
        assert_eq!(store.keys().await?, ["a/b"]);
        store.delete("a/b").await?;

        assert!(store.keys().await?.is_empty());
        Ok(())
    }
}
