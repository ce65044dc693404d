"""The benchmark: this server, the usual way and its peers, in one run on the same pictures.

__main__     what is asked for, the rounds, progress
contenders   who takes part, and how each is started
form         how a picture is posted to each
load         wrk, and what the servers cost meanwhile
answers      whether they say what the network says
report       ratios with their spread: table, JSON, plot
bare         the engines without any server around them
heatmaps     what heat maps cost
constant     this server around a model that costs nothing
usual_way, peers/   the others, each around the same eager network (eager)
"""

CONSTANT = "constant"  # the name of the model whose logits cost nothing
