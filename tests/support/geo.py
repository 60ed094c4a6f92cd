"""Writes city.mmdb and asn.mmdb, in MaxMind's format, into the folder that is named as the argument.

The networks are those of documentation (RFC 5737, RFC 3849). 192.0.2.0/24 is in neither file.
"""

import sys

from mmdb_writer import MMDBWriter
from netaddr import IPNetwork, IPSet

NETWORKS = [
    ("198.51.100.0/24", "CH", "ZH", 64500),
    ("203.0.113.0/24", "US", "NY", 64501),
    ("2001:db8:1::/48", "DE", "BE", 64502),
]

city = MMDBWriter(6, "GeoLite2-City", ipv4_compatible=True)
asn = MMDBWriter(6, "GeoLite2-ASN", ipv4_compatible=True, int_type="u32")
for text, country, region, number in NETWORKS:
    network = IPNetwork(text)
    # MaxMind's databases answer for ::ffff:198.51.100.7 as they do for 198.51.100.7.
    networks = IPSet([network, network.ipv6()])
    city.insert_network(networks, {"country": {"iso_code": country}, "subdivisions": [{"iso_code": region}]})
    asn.insert_network(networks, {"autonomous_system_number": number})
city.to_db_file(f"{sys.argv[1]}/city.mmdb")
asn.to_db_file(f"{sys.argv[1]}/asn.mmdb")
