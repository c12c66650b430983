"""The axes, one module each: a pure function from the records of a cell to a score, and the keys it publishes.

The keys are those of the scorer tables on the cell pages of CodingAgentBench (https://codingagentbench.com,
methodology 0.1). A key that the pages do not have is absent unless it has something to say.
"""
