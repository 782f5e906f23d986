"""The style sheet of the report page: system fonts, light and dark by the reader's setting, one column on a phone.

Cards of a `.grid` share its rows, and none is narrower than the table it holds: a card with many columns takes more of
the row, or all of it. Only where the page itself is narrower does a table scroll, within itself.
"""

STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5d6878;--line:#dfe3ea;--accent:#5b5bd6;--good:#1a7f4b;--bad:#c4312b;
--warn:#a46a00;--c0:#5b5bd6;--c1:#e07a1f;--c2:#1a936f;--c3:#c2378d;--c4:#2b86c5;--c5:#8a6d3b;
--c6:#c0392b;--c7:#5f6b7a;--heat-s:66%;--heat-l:80%}
@media(prefers-color-scheme:dark){:root{--bg:#11141a;--card:#1a1f28;--ink:#e6e9ef;--soft:#9aa5b5;--line:#2d3542;
--accent:#9d9dff;--good:#4cc38a;--bad:#ff7b72;--warn:#e3b341;--c0:#9d9dff;--c1:#ffa657;--c2:#56d4a4;--c3:#ff8ad1;
--c4:#79c0ff;--c5:#d2b48c;--c6:#ff9b8e;--c7:#aab4c2;--heat-s:45%;--heat-l:27%}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:20px 14px 60px}
h1{font-size:26px;line-height:1.2;margin:0 0 6px}h2{font-size:19px;margin:34px 0 10px}
p{margin:6px 0}small,.soft{color:var(--soft);font-size:13px;font-weight:400}
a{color:var(--accent)}code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{background:var(--bg);border:1px solid var(--line);border-radius:8px;padding:10px 12px;margin:8px 0;
white-space:pre-wrap}
.card,figure{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px;margin:0;min-width:0}
.card+.card,.grid+.card,.card+.grid,.grid+.grid,figure+figure,.card+figure,figure+.grid,.grid+figure,
figure+.card{margin-top:14px}
.grid>figure+figure,.grid>.card+.card{margin-top:0}
.grid{display:flex;flex-wrap:wrap;gap:14px}.grid>*{flex:1 1 330px;min-width:auto;max-width:100%}
.grid>.chart{max-width:max(50% - 7px,min(100%,420px))}
figcaption{font-weight:600;margin-bottom:8px}
.chip{display:inline-block;border-radius:99px;padding:2px 11px;font-size:13px;font-weight:600;border:1px solid;
margin:0 6px 4px 0}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.tiles{display:grid;gap:10px;grid-template-columns:repeat(auto-fit,minmax(clamp(150px,22%,260px),1fr));margin:14px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:11px 13px}
.tile b{display:block;font-size:21px;line-height:1.25}
.tile span{color:var(--soft);font-size:13px;line-height:1.35;display:block}
svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font:12px system-ui,sans-serif}
svg .rule{stroke:var(--line);fill:none}svg .line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.legend{list-style:none;padding:0;margin:6px 0 0;display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px}
.legend li::before{content:"";display:inline-block;width:16px;border-top:3px solid var(--k);margin-right:6px;
vertical-align:4px}.legend li.dashed::before{border-top-style:dashed}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:5px 9px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{white-space:normal;vertical-align:bottom;
color:var(--soft);font-weight:600;font-size:13px}
tbody th{font-weight:500;white-space:normal;min-width:96px}tbody tr:last-child>*{border-bottom:0}
.heat :is(th,td){padding:5px 6px}td.heat{background:hsl(var(--h) var(--heat-s) var(--heat-l))}
.bar{display:grid;grid-template-columns:minmax(80px,22%) 1fr 118px;gap:10px;align-items:center;font-size:13.5px;
padding:2px 0}.bar span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.bar i{height:12px;border-radius:4px;background:linear-gradient(90deg,var(--accent) var(--w),var(--line) var(--w))}
.bar b{font-weight:500;font-variant-numeric:tabular-nums;text-align:right}
.dag{overflow-x:auto}.dag svg{min-width:960px}.dag rect{fill:var(--bg);stroke:var(--line)}
.dag .succeeded{stroke:var(--good)}.dag .failed{stroke:var(--bad);stroke-width:2.5}.dag .skipped{stroke:var(--c4)}
.dag .absent{stroke-dasharray:4 3}.dag .fill{stroke:none;fill:var(--accent);opacity:.75}
.dag .edge{fill:none;stroke:var(--soft);opacity:.34}
.dag .name{fill:var(--ink);font-weight:600}.dag .area{font-weight:600}
.gain{display:grid;grid-template-columns:72px 1fr 46px;gap:2px 10px;align-items:center;padding:4px 0;font-size:14px}
.gain>div{position:relative;height:18px;background:var(--line);border-radius:5px}
.gain i{display:block;height:100%;border-radius:5px;background:var(--accent)}
.gain u{position:absolute;top:-3px;bottom:-3px;border-left:2px dashed var(--ink)}.gain b{text-align:right}
.gain small{grid-column:2/4}
ul.plain{margin:6px 0;padding-left:20px}ul.plain li{margin:2px 0;overflow-wrap:anywhere}
details summary{cursor:pointer;color:var(--soft)}
footer{margin-top:40px;color:var(--soft);font-size:13px;overflow-wrap:anywhere}
@media(max-width:480px){th,td{padding:5px 6px}}
@media print{*{print-color-adjust:exact}body{background:#fff}.card,figure{break-inside:avoid}
.scroll,.dag{overflow:visible}.dag svg{min-width:0}th,td{white-space:normal;overflow-wrap:anywhere}}
"""
