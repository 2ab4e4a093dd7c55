//! Instances under each name and address: mostly one, more after a restart or with shared names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::id::{HostName, InstanceId};

/// Instances by name and address.
#[derive(Debug, Default)]
pub struct NameIndex {
    instances: BTreeMap<(HostName, IpAddr), Vec<InstanceId>>,
}

impl NameIndex {
    /// Forgets all instances.
    pub fn clear(&mut self) {
        self.instances.clear();
    }

    /// Adds an instance.
    pub fn add(&mut self, name: HostName, ip: IpAddr, instance: InstanceId) {
        self.instances.entry((name, ip)).or_default().push(instance);
    }

    /// Removes an instance.
    pub fn remove(&mut self, name: HostName, ip: IpAddr, instance: InstanceId) {
        let key = (name, ip);
        if let Some(instances) = self.instances.get_mut(&key) {
            instances.retain(|id| *id != instance);
            if instances.is_empty() {
                self.instances.remove(&key);
            }
        }
    }

    /// Removes the instances under a name and address for which `keeps` returns false.
    pub fn retain(&mut self, name: &HostName, ip: IpAddr, keeps: impl FnMut(&InstanceId) -> bool) {
        if let Some(instances) = self.instances.get_mut(&(name.clone(), ip)) {
            instances.retain(keeps);
        }
    }

    /// Returns the instances under a name and address, in order of arrival.
    pub fn at(&self, name: &HostName, ip: IpAddr) -> &[InstanceId] {
        self.instances
            .get(&(name.clone(), ip))
            .map_or(&[], Vec::as_slice)
    }

    /// Returns the instances under a name, one list for each address.
    pub fn at_addresses(&self, name: &HostName) -> impl Iterator<Item = &Vec<InstanceId>> {
        // The lowest of all addresses.
        let first = (name.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.instances
            .range(first..)
            .take_while(move |((other, _), _)| other == name)
            .map(|(_, ids)| ids)
    }

    /// Returns true if hosts at two or more addresses have this name.
    pub fn is_shared(&self, name: &HostName) -> bool {
        self.at_addresses(name).take(2).count() > 1
    }
}
