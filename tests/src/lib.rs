pub mod vmm;
