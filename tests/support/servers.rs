//! Real servers for repositories: nginx with files and WebDAV, and moto's S3. Each is a process
//! of its own on a loopback port, with a temporary directory.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::run::{Running, try_tool};
use super::skipped;
use super::wait::until;

/// nginx that serves a directory, writable over WebDAV.
pub struct Nginx {
    dir: tempfile::TempDir,
    http: SocketAddr,
    tls: Option<SocketAddr>,
    shipped: SocketAddr,
    running: Running,
}

/// moto's server, with one bucket.
pub struct Moto {
    address: SocketAddr,
    running: Running,
}

/// The configuration that is shipped as an example.
const SHIPPED: &str = include_str!("../../packaging/repository/nginx.conf");

/// The bucket that [`Moto`] has.
pub const BUCKET: &str = "fleet";

/// nginx, unless it is not installed.
pub fn nginx() -> Option<Nginx> {
    Nginx::start().map_err(|why| skipped(&why)).ok()
}

/// moto, unless it is not installed.
pub fn moto() -> Option<Moto> {
    Moto::start().map_err(|why| skipped(&why)).ok()
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

fn wait_for(name: &str, address: SocketAddr, running: &mut Running) -> Result<(), String> {
    let mut ended = false;
    until(name, || {
        ended = running.is_over();
        ended || TcpStream::connect(address).is_ok()
    });
    match ended {
        true => Err(format!("{name} ended: {}", running.talk().trim())),
        false => Ok(()),
    }
}

/// Returns the first of `paths` that can be run.
fn program(paths: &[PathBuf]) -> Option<PathBuf> {
    let runs = |path: &&PathBuf| {
        let mut command = Command::new(path);
        command.arg("-h").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok()
    };
    paths.iter().find(runs).cloned()
}

impl Nginx {
    /// Starts nginx, with TLS if there is an openssl for the certificates.
    pub fn start() -> Result<Self, String> {
        let known = [PathBuf::from("nginx"), "/usr/sbin/nginx".into()];
        let program = program(&known).ok_or("no nginx: apt-get install nginx-light")?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).map_err(|e| e.to_string())?;
        for name in ["files", "srv", "srv/fleet"] {
            std::fs::create_dir(dir.path().join(name)).map_err(|e| e.to_string())?;
        }
        let password = format!("ci:{{PLAIN}}{}\n", Self::PASSWORD);
        let users = dir.path().join("releases.htpasswd");
        std::fs::write(users, password).map_err(|e| e.to_string())?;
        let shipped = free_port();
        let tls = certificates(dir.path()).ok().map(|()| free_port());
        let http = free_port();

        let config = dir.path().join("nginx.conf");
        std::fs::write(
            dir.path().join("shipped.conf"),
            as_here(dir.path(), shipped),
        )
        .map_err(|e| e.to_string())?;
        let text = Self::config(dir.path(), http, tls);
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        let mut command = Command::new(program);
        command.arg("-e").arg(dir.path().join("error.log"));
        command.arg("-c").arg(&config).arg("-p").arg(dir.path());
        let mut running = Running::start(&mut command);
        wait_for("nginx", http, &mut running)?;
        Ok(Self {
            dir,
            http,
            tls,
            shipped,
            running,
        })
    }

    fn config(dir: &Path, http: SocketAddr, tls: Option<SocketAddr>) -> String {
        let (dir, port) = (dir.display(), http.port());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
            .collect();
        let listen = tls.map_or(String::new(), |tls| {
            format!(
                "listen {tls} ssl;\nssl_certificate {dir}/host.pem;\n\
                 ssl_certificate_key {dir}/host.key;\n"
            )
        });
        format!(
            "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
             events {{}}\nhttp {{\naccess_log off;\n{temporary}server {{\nlisten {http};\n{listen}\
             root {dir}/files;\nclient_max_body_size 64m;\n\
             location / {{\ndav_methods PUT DELETE MKCOL;\n}}\n\
             location /away/ {{\nreturn 302 http://localhost:{port}/;\n}}\n\
             location /closed/ {{\ndeny all;\n}}\n\
             location /readonly/ {{\nlimit_except GET {{ deny all; }}\n}}\n}}\n\
             include {dir}/shipped.conf;\n}}\n"
        )
    }

    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Password of the user `ci` at [`Self::shipped`].
    pub const PASSWORD: &'static str = "hunter2";

    /// The server of the configuration that is shipped, without TLS: a repository in `/fleet`.
    pub fn shipped(&self) -> SocketAddr {
        self.shipped
    }

    /// The directory of the repository at [`Self::shipped`].
    pub fn fleet(&self) -> PathBuf {
        self.dir.path().join("srv/fleet")
    }

    /// The port with TLS, for `localhost`.
    pub fn tls(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// The certificate of the authority that signed nginx's own.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The directory that nginx serves.
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}

/// The shipped configuration with the paths and the port of this test, and nothing else changed.
fn as_here(dir: &Path, address: SocketAddr) -> String {
    let dir = dir.display();
    let mut text = SHIPPED.to_string();
    for (there, here) in [
        ("listen 443 ssl;", format!("listen {address};")),
        ("ssl_certificate /etc/nginx/releases.pem;", String::new()),
        (
            "ssl_certificate_key /etc/nginx/releases.key;",
            String::new(),
        ),
        ("root /srv;", format!("root {dir}/srv;")),
        (
            "/etc/nginx/releases.htpasswd",
            format!("{dir}/releases.htpasswd"),
        ),
    ] {
        assert_eq!(text.matches(there).count(), 1, "{there}");
        text = text.replace(there, &here);
    }
    text
}

/// Makes an authority and a certificate for `localhost`.
fn certificates(dir: &Path) -> Result<(), String> {
    let openssl = |line: &str| {
        let mut command = Command::new("openssl");
        try_tool(command.current_dir(dir).args(line.split(' ')))
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -days 30 -subj /CN=tests -keyout ca.key -out ca.pem"
    ))?;
    openssl(&format!(
        "req {key} -subj /CN=localhost -keyout host.key -out host.csr"
    ))?;
    let names = "subjectAltName=DNS:localhost\n";
    std::fs::write(dir.join("names"), names).map_err(|e| e.to_string())?;
    openssl(
        "x509 -req -in host.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names \
         -out host.pem",
    )?;
    Ok(())
}

impl Moto {
    /// Starts moto's server. It is in `MAKUO_MOTO`, or where `.ci/run` installs it.
    pub fn start() -> Result<Self, String> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        let installed = cache.map(|cache| cache.join("makuo/moto/bin/moto_server"));
        let known: Vec<PathBuf> = [
            variable("MAKUO_MOTO"),
            installed,
            Some("moto_server".into()),
        ]
        .into_iter()
        .flatten()
        .collect();
        let program = program(&known).ok_or(
            "no S3 server: python3 -m venv ~/.cache/makuo/moto && \
             ~/.cache/makuo/moto/bin/pip install 'moto[server,s3]'",
        )?;

        let address = free_port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
        let mut running = Running::start(&mut command);
        wait_for("moto_server", address, &mut running)?;
        let moto = Self { address, running };
        moto.make_bucket()?;
        Ok(moto)
    }

    fn make_bucket(&self) -> Result<(), String> {
        use std::io::{Read, Write};
        let failed = |e: std::io::Error| e.to_string();
        let mut server = TcpStream::connect(self.address).map_err(failed)?;
        let host = self.address;
        let request = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=AK/20260101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n"
        );
        server.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        server.read_to_string(&mut answer).map_err(failed)?;
        match answer.starts_with("HTTP/1.1 200") {
            true => Ok(()),
            false => Err(format!("no bucket: {answer}")),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}
