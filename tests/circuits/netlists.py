"""Netlists that tests write: a post-layout cell in three files, one in one file, DSPF, and a schematic hierarchy."""

from __future__ import annotations

from pathlib import Path

CELL = """* Calibre's three-file form
.include "{name}.pex.spice"
.subckt {name}  VNB VPB A VPWR Y VGND
MM1001 N_Y_M1001_d N_A_M1001_g N_VGND_M1001_s VNB NSHORT L=0.15 W=0.65
+ AD=0.08775 AS=0.169 PD=0.92 PS=1.82 M=1 MULT=1
MM1000 N_Y_M1000_d N_A_M1000_g N_VPWR_M1000_s VPB PHIGHVT L=0.15 W=1 AD=0.26
* a comment between a statement and its continuation
+ AS=0.135 M=2
MM1002 N_Y_M1000_d N_A_M1002_g N_VPWR_M1000_s VPB PHIGHVT L=0.15 W=1
DX4_noxref VNB VPB NWDIODE A=2.8248 P=6.73
c_9 VNB 0 1e-19
.include "{name}.pxi.spice"
.ends
"""
PXI = """x_PM_{NAME}%A N_A_c_1_n N_A_M1001_g N_A_M1000_g N_A_M1002_g A PM_{NAME}%A
x_PM_{NAME}%Y N_Y_M1001_d N_Y_M1000_d N_Y_c_2_p Y PM_{NAME}%Y
cc_1 VNB N_A_c_1_n 0.02f $X=-0.19 $Y=-0.24 $X2=0.48
cc_2 VPB N_A_M1000_g 0.03f $X=1
cc_3 N_A_M1000_g N_Y_M1001_d 0.004f
cc_4 N_Y_M1001_d N_A_M1000_g 1e-18
cc_5 A N_Y_c_2_p 0.5f
cc_6 N_A_c_1_n Y 0.25f
cc_7 N_A_M1000_g Y 0.125f
cc_8 N_A_M1000_g N_A_c_1_n 9f
cc_9 N_A_c_1_n N_VPWR_c_7_n 0.0625f
cc_10 floating N_Y_c_2_p 2e-18
"""
PEX = """.subckt PM_{NAME}%A 1 2 3 4 5
c1 5 0 3e-20 $X=1
r1 1 2 10.5 $w=1
r2 2 7 20
.ends

.subckt PM_{NAME}%Y 1 2 3 4
r3 1 2 1k
.ends
"""


def write_cell(
    folder: Path, name: str = "inv_1", *, cell: str = CELL, pxi: str = PXI, pex: str = PEX
) -> Path:
    """The three files of a cell; returns the one that includes the others."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("spice", cell), ("pxi.spice", pxi), ("pex.spice", pex)):
        (folder / f"{name}.{suffix}").write_text(text.replace("{name}", name).replace("{NAME}", name.upper()))
    return folder / f"{name}.spice"


HIERARCHY = """title of the deck, which is no statement
.global vdd
.param wide='2*w0' w0=1u
.subckt INV a y params: w=1u m=1
mn y a 0 0 nch W='w' L=100n m='m'
mp y a vdd vdd pch w={w*2} l=100n
+ m='m'
.ends inv
.subckt buf in out
Xone in mid inv w=0.5u
X2 MID out / INV w='wide' m=3
.ends
x1 p q buf m=2
x2 q r buf
rload r 0 res1 100
v1 vdd 0 1.8
.end
this is after the end
"""

DSPF = """*|DSPF 1.3
*|DESIGN "top"
*|GROUND_NET VSS
.SUBCKT top A Y VDD VSS
*|NET A 0.35PF
*|P (A I 0 1.0 2.0)
*|I (M1:G M1 G I 0 1 2)
*|I (M2:G M2 G I 0 1 2)
*|S (A:1 1 2)
R1 A A:1 10
R2 A:1 M1:G 5
C1 A:1 0 0.1f
C2 A:1 Y:1 0.05f
*|NET Y 0.2PF
*|P (Y O 0 1.0 2.0)
*|I (M1:D M1 D O 0 1 2)
*|I (M2:D M2 D O 0 1 2)
*|S (Y:1 1 2)
R1 Y Y:1 10
C1 M1:D M2:G 2e-17
C2 Y:1 0 0.3f
*|NET VDD 0
*|NET VSS 0
M1 M1:D M1:G VSS VSS nmos_rvt W=1u L=0.1u
M2 M2:D M2:G VDD VDD pmos_rvt W=2u L=0.1u
.ENDS
"""
