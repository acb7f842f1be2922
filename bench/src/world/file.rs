//! The configuration file of each node of a world: the same network in all of them, and how this one reaches the origins.

use std::net::SocketAddr;
use std::path::Path;

use super::Beside;
use super::plan::{Plan, REGIONS, SHARING};
use super::truth::{HOST, SITE_HOST, Truth};
use super::ways::Ways;

/// What all files of a world say.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub(super) plan: &'a Plan,
    pub(super) ways: &'a Ways,
    pub(super) truth: &'a Truth,
    pub(super) beside: &'a Beside,
    /// The file of the secret that followers show.
    pub(super) secret: &'a Path,
}

impl Files<'_> {
    /// Writes the text of a node that keeps its files in `data`. Only origins listen where it says so.
    pub(super) fn text(&self, data: &Path, listen: SocketAddr, origin_urls: &[String]) -> String {
        let lease_ms = self.plan.lease.as_millis();
        let mut text = format!(
            "data = \"{}\"\n[network]\nname = \"drill\"\nlease = \"{lease_ms}ms\"\nheartbeat = \"{}ms\"\n\
             [origin]\nlisten = \"{listen}\"\nurl = {}\nfollow_token = \"file:{}\"\n",
            data.display(),
            lease_ms / 5,
            list(origin_urls),
            self.secret.display(),
        );
        if let Some(control) = &self.beside.control {
            text += &format!("journal = \"{}\"\n", control.url());
        }
        if let Some(store) = &self.beside.store {
            text += &store.line();
            text += &format!("[sites.www]\nhosts = [\"{SITE_HOST}\"]\nmax_file = \"32 MiB\"\n");
        }
        text += &format!(
            "[upstreams.truth]\nservers = [\"http://{}\"]\n[routes.truth]\nhosts = [\"{HOST}\"]\nupstream = \"truth\"\n",
            self.truth.address()
        );
        text + &self.regions() + &self.edges()
    }

    fn regions(&self) -> String {
        let region = |(number, name): (usize, &str)| {
            let tier = self.beside.second_tier.as_ref().filter(|_| number == SHARING);
            let redis = tier.map(|tier| format!("redis = \"{}\"\n", tier.url())).unwrap_or_default();
            format!("[regions.{name}]\nlatitude = 0\nlongitude = 0\n{redis}")
        };
        REGIONS.iter().map(|region| region.name).enumerate().map(region).collect()
    }

    fn edges(&self) -> String {
        let edges = self.plan.edges().into_iter().zip(&self.ways.places).map(|(seat, place)| {
            let region = REGIONS.get(seat.region).map_or("", |region| region.name);
            let (name, listen, admin) = (seat.name, place.listen, place.admin);
            format!("[edges.{name}]\nregion = \"{region}\"\nlisten = \"{listen}\"\nadmin = \"{admin}\"\nmemory = \"64 MiB\"\n")
        });
        edges.collect()
    }
}

fn list(urls: &[String]) -> String {
    let urls: Vec<_> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    match urls.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_url_stands_alone_and_several_are_a_list() {
        assert_eq!(list(&["http://a".to_owned()]), "\"http://a\"");
        assert_eq!(list(&["http://a".to_owned(), "http://b".to_owned()]), "[\"http://a\", \"http://b\"]");
    }
}
