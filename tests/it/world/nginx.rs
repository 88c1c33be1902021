//! A real nginx, in a folder of its own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use super::World;
use super::program::Program;

impl World {
    /// `http`: what stands in the block of that name, with somebody who listens there. It lies in `nginx.conf`.
    pub fn nginx(&self, folder: &Path, http: &str, listen: SocketAddr) -> Program {
        let conf = folder.join("nginx.conf");
        fs::write(&conf, format!("{BEFORE}{http}}}\n")).expect("a configuration of nginx");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(&conf).arg("-e").arg(folder.join("error.log"));
        let nginx = Program::start(&mut command, folder, "nginx");
        self.eventually("nginx listens", || TcpStream::connect(listen).is_ok());
        nginx
    }
}

const BEFORE: &str = "daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path tmp-body;
    proxy_temp_path tmp-proxy;
    fastcgi_temp_path tmp-fastcgi;
    uwsgi_temp_path tmp-uwsgi;
    scgi_temp_path tmp-scgi;
";
