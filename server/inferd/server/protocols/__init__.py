"""The gRPC edge: protocol in, protocol out.

transport             the seam: calls of bytes in, bytes out
cq, public            its two implementations            choice, listen, listeners, callbacks     what both need
services              which method is answered by whom   edge      the wall that no exception passes
predict, predict_stream, models, watch, health, reflection     inferd.v1 and gRPC's own services
oip, tfs              the foreign services
burst, lone, speech   calls that came together, or alone: short cuts for what repeats itself
guard, admitted, rules, bounded, audited     who may call what, how much of it, and the line in the audit log
"""
