cap-b.lab.ts. derp: 0 rules: 1 users: 1 regions: 1
cap-b.lab.ts. derp: 0 rules: 1 users: 1 regions: 1
cap-b.lab.ts. derp: 0 rules: 1 users: 1 regions: 1
cap-b.lab.ts. derp: 0 rules: 1 users: 1 regions: 1
cap-b.lab.ts. derp: 999 rules: 1 users: 1 regions: 1
cap-b.lab.ts. derp: 999 rules: 1 users: 1 regions: 1
cap-b.lab.ts. derp: 999 rules: 1 users: 1 regions: 1 | cap-a.lab.ts. ["100.64.0.2/32","fd7a:115c:a1e0::2/128"] null derp: 0 online: 1 peerapi: 0
cap-b.lab.ts. derp: 999 rules: 1 users: 1 regions: 1 | cap-a.lab.ts. ["100.64.0.2/32","fd7a:115c:a1e0::2/128"] null derp: 0 online: 1 peerapi: 0
cap-b.lab.ts. derp: 999 rules: 1 users: 1 regions: 1 | cap-a.lab.ts. ["100.64.0.2/32","fd7a:115c:a1e0::2/128"] null derp: 0 online: 1 peerapi: 0
cap-b.lab.ts. derp: 999 rules: 1 users: 1 regions: 1 | cap-a.lab.ts. ["100.64.0.2/32","fd7a:115c:a1e0::2/128"] null derp: 0 online: 2 peerapi: 46590
cap-b.lab.ts. derp: 999 rules: 1 users: 1 regions: 1 | cap-a.lab.ts. ["100.64.0.2/32","fd7a:115c:a1e0::2/128"] null derp: 0 online: 2 peerapi: 46590
cap-b.lab.ts. derp: 999 rules: 1 users: 1 regions: 1 | cap-a.lab.ts. ["100.64.0.2/32","fd7a:115c:a1e0::2/128"] null derp: 0 online: 2 peerapi: 46590
cap-b.lab.ts. derp: 999 rules: 1 users: 1 regions: 1 | cap-a.lab.ts. ["100.64.0.2/32","fd7a:115c:a1e0::2/128"] ["10.99.0.10:26974"] derp: 999 online: 2 peerapi: 46590
