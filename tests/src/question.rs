//! Asking a DNS node, byte by byte: what is asked must not depend on the library that answers.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::PATIENCE;

const ID: u16 = 0x4154;
const TYPE_A: u16 = 1;
const TYPE_OPT: u16 = 41;
const CLIENT_SUBNET: u16 = 8;

/// The network of the client that a resolver asks for (RFC 7871).
#[derive(Clone, Copy, Debug)]
pub struct Subnet(pub Ipv4Addr, pub u8);

/// What a DNS node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsAnswer {
    /// 0 for well, 2 for a failure of the server, 3 for no such name, 5 for refused.
    pub rcode: u8,
    /// Whether the node speaks for the zone.
    pub authoritative: bool,
    /// The addresses, in order.
    pub addresses: Vec<Ipv4Addr>,
    /// How long they may be kept, in seconds.
    pub ttl: Option<u32>,
    /// For which network around the client the answer is right.
    pub scope: Option<u8>,
}

/// Asks for the A records of a name over UDP.
///
/// # Errors
/// Where no answer came, or one that can't be read.
pub async fn ask_over_udp(server: SocketAddr, name: &str, subnet: Option<Subnet>) -> Result<DnsAnswer> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.send_to(&question(name, subnet)?, server).await?;
    let mut buffer = vec![0; 4096];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.context("no answer came")??;
    read(buffer.get(..length).unwrap_or_default())
}

/// Asks for the A records of a name over TCP.
///
/// # Errors
/// Where no answer came, or one that can't be read.
pub async fn ask_over_tcp(server: SocketAddr, name: &str, subnet: Option<Subnet>) -> Result<DnsAnswer> {
    let question = question(name, subnet)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&u16::try_from(question.len())?.to_be_bytes()).await?;
    stream.write_all(&question).await?;
    let length = tokio::time::timeout(PATIENCE, stream.read_u16()).await.context("no answer came")??;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    read(&answer)
}

fn question(name: &str, subnet: Option<Subnet>) -> Result<Vec<u8>> {
    let mut packet = Vec::new();
    packet.extend(ID.to_be_bytes());
    // RD; one question, one additional record.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len())?);
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend(TYPE_A.to_be_bytes());
    packet.extend([0, 1]);
    packet.push(0);
    packet.extend(TYPE_OPT.to_be_bytes());
    packet.extend(1232_u16.to_be_bytes());
    packet.extend([0; 4]);
    let options = subnet.map(option).unwrap_or_default();
    packet.extend(u16::try_from(options.len())?.to_be_bytes());
    packet.extend(options);
    Ok(packet)
}

fn option(Subnet(address, bits): Subnet) -> Vec<u8> {
    let told = bits.div_ceil(8);
    let mut option = Vec::new();
    option.extend(CLIENT_SUBNET.to_be_bytes());
    option.extend(u16::from(told + 4).to_be_bytes());
    option.extend([0, 1, bits, 0]);
    option.extend(address.octets().into_iter().take(usize::from(told)));
    option
}

/// A packet that is being read.
struct Packet<'a>(&'a [u8]);

impl<'a> Packet<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("the answer is cut")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(*self.take(1)?.first().context("the answer is cut")?)
    }

    fn short(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn long(&mut self) -> Result<u32> {
        Ok((u32::from(self.short()?) << 16) | u32::from(self.short()?))
    }

    fn skip_name(&mut self) -> Result<()> {
        loop {
            match self.byte()? {
                0 => return Ok(()),
                // A pointer, which ends a name (RFC 1035, 4.1.4).
                length if length >= 0xc0 => {
                    self.byte()?;
                    return Ok(());
                }
                length => {
                    self.take(usize::from(length))?;
                }
            }
        }
    }
}

fn read(bytes: &[u8]) -> Result<DnsAnswer> {
    let mut packet = Packet(bytes);
    ensure!(packet.short()? == ID, "the answer is to another question");
    let (flags, rcode) = (packet.byte()?, packet.byte()? & 0x0f);
    ensure!(flags & 0x80 != 0, "a question came back");
    let questions = packet.short()?;
    let records = u32::from(packet.short()?) + u32::from(packet.short()?) + u32::from(packet.short()?);
    for _ in 0..questions {
        packet.skip_name()?;
        packet.take(4)?;
    }
    let mut answer = DnsAnswer { rcode, authoritative: flags & 0x04 != 0, addresses: Vec::new(), ttl: None, scope: None };
    for _ in 0..records {
        packet.skip_name()?;
        let kind = packet.short()?;
        packet.short()?;
        let ttl = packet.long()?;
        let length = packet.short()?;
        let data = packet.take(usize::from(length))?;
        match (kind, data) {
            (TYPE_A, [a, b, c, d]) => {
                answer.addresses.push(Ipv4Addr::new(*a, *b, *c, *d));
                answer.ttl = Some(ttl);
            }
            (TYPE_OPT, options) => answer.scope = scope(options)?,
            _ => {}
        }
    }
    Ok(answer)
}

fn scope(options: &[u8]) -> Result<Option<u8>> {
    let mut options = Packet(options);
    while !options.0.is_empty() {
        let (code, length) = (options.short()?, options.short()?);
        let value = options.take(usize::from(length))?;
        if code == CLIENT_SUBNET {
            return Ok(value.get(3).copied());
        }
    }
    Ok(None)
}
