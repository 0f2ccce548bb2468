fn main() {
    let cpus = vec![0, 1];
    let k = kvmeter::bpf::Kernel::start(kvmeter::bpf::object::Sizes{threads:32768,vms:4096,pid_max:32768}, cpus, std::path::Path::new("/sys/kernel/btf/vmlinux"), true);
    let mut k = match k { Ok(k)=>k, Err((e,s))=>{ eprintln!("{e:?} {s:#?}"); return; } };
    for s in k.statuses() { eprintln!("{:?}", s); }
    for _ in 0..10 {
        let t = std::time::Instant::now(); let n = k.refresh(); let t1=t.elapsed();
        let t = std::time::Instant::now(); let w = k.walk(); let t2=t.elapsed();
        let t = std::time::Instant::now(); let r = k.read(); let t3=t.elapsed();
        eprintln!("refresh {n} {t1:?} walk {w:?} {t2:?} read {t3:?} wakes {}", k.drain());
        for v in r { eprintln!("{v:?} {:?}", String::from_utf8_lossy(&k.args(v.slot).0)); }
        for (s,l) in k.losses() { if l>0 { eprintln!("{s}={l}"); } }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
