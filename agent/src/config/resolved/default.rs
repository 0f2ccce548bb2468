//! What holds where nothing is configured: the contract's.

use std::net::{IpAddr, Ipv4Addr};

use super::*;

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9973)),
            web_config: None,
            socket: PathBuf::from("/run/kvmeter/kvmeter.sock"),
            data_dir: PathBuf::from("/var/lib/kvmeter"),
            sample_interval: seconds(1),
            log: Log { format: LogFormat::Text, level: LogLevel::Info },
            annotations: Annotations { uids: vec![0] },
            bpf: Bpf {
                enabled: BpfMode::Auto,
                pin_dir: Some(PathBuf::from("/sys/fs/bpf/kvmeter")),
                exit_reasons: true,
                max_threads: 32_768,
                max_vms: 4096,
                wake_bytes: 262_144,
            },
            discovery: Discovery { scan_interval: seconds(60) },
            history: History {
                interval: seconds(10),
                samples: 60_480,
                max_memory: Bytes::mib(256),
                keep_stopped: seconds(3600),
                save_interval: seconds(300),
            },
            ledger: Ledger {
                recorder: Recorder::File,
                heartbeat: seconds(60),
                max_file: Bytes::mib(64),
                max_file_age: seconds(7 * 86_400),
                retain: None,
                max_total: None,
                max_unread: None,
                min_free: Bytes::mib(256),
                readers: Vec::new(),
            },
            http: Http { max_connections: 256 },
            inventory: Inventory::default(),
            memory: Memory { pss_interval: seconds(60) },
            metrics: Metrics { linger: seconds(120), histograms: false, per_vcpu: false, statsd: None, otlp: None },
            network: Network::default(),
            workload: Workload::default(),
            pools: Vec::new(),
            hooks: Vec::new(),
        }
    }
}
