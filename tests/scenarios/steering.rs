//! Steering: the DNS answers with the nearest region that lives.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use harness::{DnsAnswer, Subnet, Town, ask_over_tcp, ask_over_udp, eventually};

const NAME: &str = "www.example.test";
const FRA: (Subnet, Ipv4Addr) = (Subnet(Ipv4Addr::new(192, 0, 2, 0), 24), Ipv4Addr::new(127, 0, 0, 1));
const IAD: (Subnet, Ipv4Addr) = (Subnet(Ipv4Addr::new(198, 51, 100, 0), 24), Ipv4Addr::new(127, 0, 0, 2));
const SIN: (Subnet, Ipv4Addr) = (Subnet(Ipv4Addr::new(203, 0, 113, 0), 24), Ipv4Addr::new(127, 0, 0, 3));

async fn town() -> Result<Town> {
    Town::plan().lease("2s").edges(&["fra-1", "iad-1", "sin-1"]).dns().start().await
}

/// Asks until clients of `subnet` are sent to `address`.
async fn steered(town: &Town, subnet: Subnet, address: Ipv4Addr) -> Result<DnsAnswer> {
    let nameserver = town.nameserver()?;
    eventually(&format!("{subnet:?} to be sent to {address}"), || async {
        let answer = ask_over_udp(nameserver, NAME, Some(subnet)).await?;
        ensure!(answer.rcode == 0 && answer.addresses == [address], "{answer:?}");
        Ok(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_is_sent_to_the_nearest_region_by_its_subnet() -> Result<()> {
    let town = town().await?;

    for (subnet, address) in [FRA, IAD, SIN] {
        let answer = steered(&town, subnet, address).await?;

        assert_eq!((answer.authoritative, answer.ttl, answer.scope), (true, Some(20), Some(24)));
        assert_eq!(ask_over_tcp(town.nameserver()?, NAME, Some(subnet)).await?, answer);
    }
    // Who tells no subnet is where the resolver is, and loopback is nowhere: every node agrees on the first by name.
    let unknown = ask_over_udp(town.nameserver()?, "example.test", None).await?;
    assert_eq!((unknown.addresses, unknown.scope), (vec![FRA.1], None));
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_there_or_not_ours_is_said_to_be_so() -> Result<()> {
    let town = town().await?;
    steered(&town, FRA.0, FRA.1).await?;

    let missing = ask_over_udp(town.nameserver()?, "nowhere.example.test", None).await?;
    let foreign = ask_over_udp(town.nameserver()?, "example.org", None).await?;

    assert_eq!((missing.rcode, missing.authoritative), (3, true));
    assert_eq!((foreign.rcode, foreign.authoritative), (5, false));
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_edge_is_out_when_its_lease_ends_and_back_when_it_returns() -> Result<()> {
    let mut town = town().await?;
    steered(&town, IAD.0, IAD.1).await?;

    // Without a word: nobody can tell it from an edge whose machine burnt down.
    town.cut("iad-1")?;

    // Washington is nearer to Frankfurt than to Singapore.
    steered(&town, IAD.0, FRA.1).await?;
    steered(&town, SIN.0, SIN.1).await?;
    town.mend("iad-1")?;
    steered(&town, IAD.0, IAD.1).await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_leaves_well_is_out_and_its_region_s_other_edge_stays() -> Result<()> {
    let mut town = Town::plan().lease("2s").edges(&["fra-1", "fra-2", "iad-1"]).dns().start().await?;
    steered(&town, FRA.0, FRA.1).await?;

    town.stop_edge("fra-1").await?;
    steered(&town, FRA.0, FRA.1).await?;
    town.stop_edge("fra-2").await?;

    steered(&town, FRA.0, IAD.1).await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_drained_is_out_until_it_is_started_anew() -> Result<()> {
    let mut town = town().await?;
    let control = town.control()?;
    steered(&town, IAD.0, IAD.1).await?;

    control.send("POST", "/v1/nodes/iad-1/drain", &[], "").await?.with_status(204)?;
    control.send("POST", "/v1/nodes/mia-1/drain", &[], "").await?.problem(404)?;

    steered(&town, IAD.0, FRA.1).await?;
    eventually("the drained edge to leave the receipts", || async {
        let status = control.status().await?;
        ensure!(status.followers.iter().all(|follower| follower.name.as_str() != "iad-1"), "{status:?}");
        Ok(())
    })
    .await?;
    eventually("the drained edge to say so", || async {
        let readiness = town.admin("iad-1", "/readyz").await?.with_status(503)?;
        ensure!(readiness.text().starts_with("drained"), "{readiness:?}");
        Ok(())
    })
    .await?;
    // It goes on saying how far it is, and gets no lease for it, also from an origin that was restarted.
    town.stop_origin().await?;
    town.start_origin().await?;
    steered(&town, SIN.0, SIN.1).await?;
    steered(&town, IAD.0, FRA.1).await?;
    town.stop_edge("iad-1").await?;
    town.start_edge("iad-1").await?;
    steered(&town, IAD.0, IAD.1).await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dns_node_goes_on_answering_while_the_origin_is_gone() -> Result<()> {
    let mut town = town().await?;
    for (subnet, address) in [FRA, IAD, SIN] {
        steered(&town, subnet, address).await?;
    }

    town.stop_origin().await?;

    for (subnet, address) in [FRA, IAD, SIN] {
        let answer = ask_over_udp(town.nameserver()?, NAME, Some(subnet)).await?;
        assert_eq!((answer.rcode, answer.addresses), (0, vec![address]));
    }
    town.start_origin().await?;
    town.settled().await?;
    for (subnet, address) in [FRA, IAD, SIN] {
        steered(&town, subnet, address).await?;
    }
    town.stop().await;
    Ok(())
}
