//! What VMs are known by, against what they become.

use super::*;

fn vm(vm_id: &str, tenant: &str) -> Arc<VmView> {
    let fixed = VmFixed { vm_id: vm_id.to_owned(), name: "n\"".to_owned(), uuid: "u".to_owned(), ..VmFixed::default() };
    let owner = Owner { tenant: Some(tenant.to_owned()), ..Owner::default() };
    Arc::new(VmView { fixed: Arc::new(fixed), owner: Arc::new(owner), ..VmView::default() })
}

fn with_owner(vm: &VmView, owner: Owner) -> Arc<VmView> {
    Arc::new(VmView { owner: Arc::new(owner), ..vm.clone() })
}

#[test]
fn each_vm_has_its_own_text_and_what_it_is_called_last() {
    let first = vm("a", "t");
    let named = with_owner(&first, Owner { uuid: Some("later".to_owned()), ..Owner::default() });
    let known = Known::of(&[first, vm("b", "s"), named]);
    let of = |place| [&known.labels, &known.info].map(|texts| String::from_utf8(texts.of(place).to_vec()).unwrap());
    let info =
        |uuid, tenant| format!(",uuid=\"{uuid}\",incarnation=\"\",hypervisor=\"\",cgroup=\"\",tenant=\"{tenant}\"}} ");
    assert_eq!(of(0), ["vm_id=\"a\",name=\"n\\\"\"".to_owned(), info("u", "t")]);
    assert_eq!(of(1), ["vm_id=\"b\",name=\"n\\\"\"".to_owned(), info("u", "s")]);
    assert_eq!(of(2), ["vm_id=\"a\",name=\"n\\\"\"".to_owned(), info("later", "")]);
}

#[test]
fn it_holds_as_long_as_the_vms_are_the_same_in_the_same_order_and_belong_to_the_same() {
    let (a, b, c) = (vm("a", "t"), vm("b", "t"), vm("c", "t"));
    let known = Known::of(&[Arc::clone(&a), Arc::clone(&b)]);
    // Another sample of the same VM.
    let later = Arc::new(VmView { read_ns: 7, ..VmView::clone(&b) });
    assert!(known.is_of(&[Arc::clone(&a), later]));
    let given = with_owner(&b, Owner { tenant: Some("s".to_owned()), ..Owner::default() });
    let others: [&[&Arc<VmView>]; 6] = [&[], &[&a], &[&b, &a], &[&a, &c], &[&a, &b, &c], &[&a, &given]];
    for vms in others {
        let vms: Vec<_> = vms.iter().map(|vm| Arc::clone(vm)).collect();
        assert!(!known.is_of(&vms), "{vms:?}");
    }
}
