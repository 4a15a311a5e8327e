//! How a process becomes a rank: it says hello to its supervisor, learns of the others, and
//! connects to them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ferrata_ir::Communicator;
use ferrata_ir::{Error, Result};

use super::control::{self, Greeting, Hello, Member, Order, PROTOCOL, VERSION};
use super::environment::{Backend, Place};
use super::rank::{Heart, Supervised};
use super::sockets::{Peer, Sockets};
use super::stream::{Listener, Stream};

/// How long a rank tries to reach its supervisor, which may be started after it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes the place in a job that the environment names.
pub(super) fn join(place: &Place) -> Result<Arc<dyn Communicator>> {
    let line = place.supervisor.connect(PATIENCE).map_err(|error| {
        let supervisor = &place.supervisor;
        Error::new(format!(
            "rank {} cannot reach its launcher at {supervisor}: {error}",
            place.rank
        ))
        .help("see whether it runs, and whether its address can be reached from this host")
    })?;
    let network = |error: io::Error| {
        Error::new(format!("rank {} cannot talk to its launcher: {error}", place.rank))
    };
    let door = match place.backend {
        Backend::Sockets => {
            let name = format!("rank-{}-{}", place.rank, std::process::id());
            Some(line.listen_beside(&name).map_err(network)?)
        }
        Backend::Mpi => None,
    };
    let hello = Hello {
        protocol: PROTOCOL,
        version: VERSION.to_owned(),
        job: place.job.clone(),
        rank: place.rank,
        ranks: place.ranks,
        host: host(),
        pid: std::process::id(),
        device: place.device.clone(),
        listens: door.as_ref().map(|(_, address)| address.to_string()),
    };
    control::send(&line, &hello).map_err(network)?;
    let members = match control::receive(&line).map_err(network)? {
        Some(Order::Begin(members)) => members,
        Some(Order::Refuse(reason)) => return Err(Error::new(reason)),
        Some(Order::Stop) | None => {
            return Err(Error::new(format!("the launcher ended before rank {} began", place.rank)));
        }
    };
    let heart = Heart::new(line);
    let inner: Box<dyn Communicator> = match &door {
        Some((door, _)) => Box::new(connect(place, &members, door)?),
        None => super::environment::mpi(place.ranks)?,
    };
    Ok(Arc::new(Supervised::new(inner, heart, place.neighbours)))
}

/// The name of this machine.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Streams to all other ranks: each connects to those before it and is connected to by those
/// after it.
fn connect(place: &Place, members: &[Member], door: &Listener) -> Result<Sockets> {
    let failed = |rank: usize, error: io::Error| {
        let host = &members[rank].host;
        Error::new(format!("rank {} cannot connect to rank {rank} on {host}: {error}", place.rank))
            .help("ranks have to reach each other over the network")
    };
    let mut peers: Vec<Option<Peer>> = (0..members.len()).map(|_| None).collect();
    let greeting = Greeting { job: place.job.clone(), rank: place.rank };
    for (rank, member) in members.iter().enumerate().take(place.rank) {
        let address = member.listens.as_deref().unwrap_or_default();
        let stream = super::stream::Address::parse(address)
            .connect(PATIENCE)
            .and_then(|stream| control::send(&stream, &greeting).map(|()| stream))
            .map_err(|error| failed(rank, error))?;
        let peer = Peer::new(stream, member.host.clone());
        peers[rank] = Some(peer.map_err(|error| failed(rank, error))?);
    }
    while let Some(missing) = (place.rank + 1..members.len()).find(|&rank| peers[rank].is_none()) {
        let (stream, greeting) = greeted(door).map_err(|error| failed(missing, error))?;
        // Strangers, and ranks of an earlier start, are left standing.
        let expected = peers.get(greeting.rank).is_some_and(Option::is_none);
        if greeting.job == place.job && greeting.rank > place.rank && expected {
            let host = members[greeting.rank].host.clone();
            let peer = Peer::new(stream, host).map_err(|error| failed(greeting.rank, error))?;
            peers[greeting.rank] = Some(peer);
        }
    }
    Ok(Sockets::new(place.rank, peers))
}

/// The next connection that says who it is.
fn greeted(door: &Listener) -> io::Result<(Stream, Greeting)> {
    loop {
        let stream = door.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        if let Ok(Some(greeting)) = control::receive(&stream) {
            stream.set_read_timeout(None)?;
            return Ok((stream, greeting));
        }
    }
}
