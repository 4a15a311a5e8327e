//! Byte streams between processes: Unix domain sockets on one machine, TCP between machines.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A connection over the network ends when what was sent has not arrived after so many milliseconds.
#[cfg(target_os = "linux")]
const UNHEARD: u32 = 10_000;

/// Where a process listens, written `unix:PATH` or `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(String),
}

impl Address {
    pub fn parse(text: &str) -> Address {
        match text.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(text.to_owned()),
        }
    }

    /// Connects, trying again for as long as nobody listens yet and `patience` lasts.
    pub fn connect(&self, patience: Duration) -> io::Result<Stream> {
        let start = Instant::now();
        loop {
            let connected = match self {
                Address::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
                Address::Tcp(address) => TcpStream::connect(address).map(Stream::Tcp),
            };
            match connected {
                Ok(stream) => return stream.tuned(),
                Err(error) if start.elapsed() >= patience => return Err(error),
                Err(_) => sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(address) => f.write_str(address),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn tuned(self) -> io::Result<Stream> {
        if let Stream::Tcp(stream) = &self {
            stream.set_nodelay(true)?;
            // Behind a cut cable a rank has to notice that its supervisor is gone.
            #[cfg(target_os = "linux")]
            rustix::net::sockopt::set_tcp_user_timeout(stream, UNHEARD)?;
        }
        Ok(self)
    }

    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_nonblocking(nonblocking),
            Stream::Tcp(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
        }
    }

    pub fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
        })
    }

    /// Ends the connection, for clones of it too.
    pub fn shut(&self) {
        // It may be closed already.
        let _ = match self {
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Both),
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Both),
        };
    }

    /// A place to listen that whoever is at the other end of this connection can reach: a socket
    /// called `name` beside its own, or a free port of the interface that leads there.
    pub fn listen_beside(&self, name: &str) -> io::Result<(Listener, Address)> {
        match self {
            Stream::Unix(stream) => {
                let peer = stream.peer_addr()?;
                let folder = peer.as_pathname().and_then(|path| path.parent());
                let path = folder.ok_or(io::ErrorKind::AddrNotAvailable)?.join(name);
                let listener = Listener::Unix(UnixListener::bind(&path)?);
                Ok((listener, Address::Unix(path)))
            }
            Stream::Tcp(stream) => Listener::on_interface(stream.local_addr()?.ip(), 0),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).read(buffer),
            Stream::Tcp(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).write(buffer),
            Stream::Tcp(stream) => (&*stream).write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes connections.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens at a new Unix socket.
    pub fn at_path(path: PathBuf) -> io::Result<(Listener, Address)> {
        Ok((Listener::Unix(UnixListener::bind(&path)?), Address::Unix(path)))
    }

    /// Listens at `port` (0: any free one) of the interface with the address `ip`.
    pub fn on_interface(ip: IpAddr, port: u16) -> io::Result<(Listener, Address)> {
        let listener = TcpListener::bind((ip, port))?;
        let address = Address::Tcp(listener.local_addr()?.to_string());
        Ok((Listener::Tcp(listener), address))
    }

    /// Listens at `port` (0: any free one) of all interfaces; others reach it as `host`.
    pub fn on_all_interfaces(host: &str, port: u16) -> io::Result<(Listener, Address)> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        let port = listener.local_addr()?.port();
        Ok((Listener::Tcp(listener), Address::Tcp(format!("{host}:{port}"))))
    }

    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Unix(listener) => Stream::Unix(listener.accept()?.0),
            Listener::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
        }
        .tuned()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}
